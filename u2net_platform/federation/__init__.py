"""Training over sites that keep their data: the one package that knows Flower."""
