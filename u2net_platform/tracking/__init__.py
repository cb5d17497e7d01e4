"""Parameters, curves and artifacts of runs. The one package that knows MLflow."""
