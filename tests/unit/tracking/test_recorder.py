from __future__ import annotations

from u2net_platform.tracking.recorder import NullRecorder, Recorder


def record(recorder: Recorder) -> str | None:
    recorder.log_params({"seed": 1})
    recorder.log_metrics({"loss": 1.0}, step=1)
    recorder.finish("completed")
    return recorder.run_id


def test_the_null_recorder_takes_everything_and_has_no_run() -> None:
    assert record(NullRecorder()) is None
