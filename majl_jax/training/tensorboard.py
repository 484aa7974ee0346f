"""Scalars, hyper-parameters, sound and pictures for TensorBoard, written without TensorFlow."""

import importlib
import itertools
import os
import pathlib
import platform
import struct
import time
import wave
from collections.abc import Mapping
from typing import Any

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
        self._metadata = summaries.SummaryMetadata
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

    def config(self, fields: Mapping[str, Any]) -> None:
        """The fields of a config as hyper-parameters (HPARAMS) and as a table (TEXT)."""
        if self._records is None:
            return
        flat = _flat(fields)
        hparams = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
        said = hparams.SessionStartInfo(start_time_secs=time.time())
        for name, value in flat.items():
            kind = "bool_value" if isinstance(value, bool) else "string_value"
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                kind = "number_value"
            setattr(said.hparams[name], kind, value)
        content = hparams.HParamsPluginData(version=0, session_start_info=said)
        table = "\n".join(
            ["| field | value |", "|---|---|", *(f"| {k} | {v} |" for k, v in flat.items())]
        )
        metadata = self._metadata
        start = metadata(
            plugin_data={"plugin_name": "hparams", "content": content.SerializeToString()}
        )
        text = metadata(plugin_data={"plugin_name": "text"})
        tensor = importlib.import_module("tensorboard.compat.proto.tensor_pb2").TensorProto
        values = [
            self._summary.Value(
                tag="_hparams_/session_start_info", metadata=start, tensor=tensor(dtype=1)
            ),
            self._summary.Value(
                tag="config", metadata=text, tensor=tensor(dtype=7, string_val=[table.encode()])
            ),
        ]
        self._add(self._event(wall_time=time.time(), step=0, summary=self._summary(value=values)))

    def file(self, tag: str, step: int, path: pathlib.Path) -> None:
        """A WAV file of 16 bits as sound, a PNG file as a picture; of others nothing."""
        if self._records is None or path.suffix not in (".wav", ".png"):
            return
        data = path.read_bytes()
        if path.suffix == ".png":
            # Of the header, behind the signature: length, IHDR, width, height.
            width, height = struct.unpack(">II", data[16:24])
            picture = {"width": width, "height": height, "colorspace": 4}
            value = {"image": {**picture, "encoded_image_string": data}}
        else:
            with wave.open(str(path)) as sound:
                rate_hz, channels = sound.getframerate(), sound.getnchannels()
                frames = sound.getnframes()
            audio = {"sample_rate": rate_hz, "num_channels": channels, "length_frames": frames}
            content = {"content_type": "audio/wav", "encoded_audio_string": data}
            value = {"audio": {**audio, **content}}
        summary = self._summary(value=[self._summary.Value(tag=tag, **value)])
        self._add(self._event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        if self._records is not None:
            self._records.close()


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, bool | int | float | str]:
    """{"stages.teacher.steps": 300} of a config; what is no number, text or truth value as text."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[above + name] = (
                value if isinstance(value, bool | int | float | str) else str(value)
            )
    return found
