"""Scalars for TensorBoard, written without TensorFlow."""

import importlib
import itertools
import os
import pathlib
import platform
import time
from collections.abc import Mapping

_files = itertools.count()


class Events:
    """TensorBoard event files, by tensorboard's own record writer, which needs no TensorFlow.

    Without tensorboard nothing is written.
    """

    def __init__(self, folder: pathlib.Path, step: int):
        try:
            events = importlib.import_module("tensorboard.compat.proto.event_pb2")
            summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            self._records = None
            return
        self._event, self._summary = events.Event, summaries.Summary
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{platform.node()}.{os.getpid()}.{next(_files)}"
        self._records = RecordWriter((folder / name).open("wb"))
        self._add(self._event(wall_time=now, file_version="brain.Event:2"))
        # Tells TensorBoard to drop what a killed run wrote about the steps that come now.
        start = events.SessionLog(status=events.SessionLog.START)
        self._add(self._event(wall_time=now, step=step + 1, session_log=start))

    def _add(self, event) -> None:
        if self._records is not None:
            self._records.write(event.SerializeToString())
            self._records.flush()

    def scalars(self, prefix: str, step: int, values: Mapping[str, float]) -> None:
        if self._records is not None:
            value = [
                self._summary.Value(tag=f"{prefix}/{name}", simple_value=value)
                for name, value in values.items()
            ]
            summary = self._summary(value=value)
            self._add(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        if self._records is not None:
            self._records.close()
