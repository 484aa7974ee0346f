"""Tracker modules (MOD, S3M, XM, IT and kin) played by libopenmpt's shared library, with any of
their instruments muted.
"""

import ctypes
import ctypes.util
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from majl_jax.audio.faults import AudioFileError

PACKAGE = "libopenmpt0"
INSTALL = f"apt-get install --no-install-recommends {PACKAGE}"
# Where ctypes.util finds nothing: the loader may, by LD_LIBRARY_PATH.
NAMES = ("libopenmpt.so.0", "libopenmpt.dylib", "libopenmpt.dll")
CHANNELS = 2
COMMANDS = 6
BLOCK_SAMPLES = 1 << 14
# Places in the table of functions openmpt_module_ext_interface_interactive (libopenmpt 0.3 on).
_INTERACTIVE, _FUNCTIONS = b"interactive", 16
_MUTE_CHANNEL, _PLAY_NOTE = 10, 14
# Of following the rows.
_FOLLOWED_HZ, _STEP = 8000, 16
STEP_S = _STEP / _FOLLOWED_HZ
Block = Float32[np.ndarray, "_ channel"]


@functools.cache
def _library() -> ctypes.CDLL:
    """The library with the types of the functions used here; raises ModuleNotFoundError."""
    for name in (ctypes.util.find_library("openmpt"), *NAMES):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is not None:
            return _typed(library)
    raise ModuleNotFoundError(f"libopenmpt, which plays modules, is not there: `{INSTALL}`")


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number, text = ctypes.c_void_p, ctypes.c_int32, ctypes.c_char_p
    library.openmpt_module_ext_create_from_memory.restype = pointer
    library.openmpt_module_ext_create_from_memory.argtypes = [
        *(text, ctypes.c_size_t, pointer, pointer, pointer, pointer, pointer),
        *(ctypes.POINTER(pointer), pointer),
    ]
    library.openmpt_module_ext_destroy.argtypes = [pointer]
    library.openmpt_module_ext_destroy.restype = None
    library.openmpt_module_ext_get_module.argtypes = [pointer]
    library.openmpt_module_ext_get_module.restype = pointer
    library.openmpt_module_ext_get_interface.argtypes = [pointer, text, pointer, ctypes.c_size_t]
    library.openmpt_free_string.argtypes = [pointer]
    library.openmpt_free_string.restype = None
    for name in ("channels", "orders", "patterns", "instruments", "samples"):
        function = getattr(library, f"openmpt_module_get_num_{name}")
        function.argtypes, function.restype = [pointer], number
    for name in ("instrument", "sample"):
        function = getattr(library, f"openmpt_module_get_{name}_name")
        function.argtypes, function.restype = [pointer, number], pointer
    library.openmpt_module_get_pattern_num_rows.argtypes = [pointer, number]
    library.openmpt_module_get_order_pattern.argtypes = [pointer, number]
    cell = library.openmpt_module_get_pattern_row_channel_command
    cell.argtypes, cell.restype = [pointer, number, number, number, ctypes.c_int], ctypes.c_uint8
    for name in ("order", "row"):
        getattr(library, f"openmpt_module_get_current_{name}").argtypes = [pointer]
    library.openmpt_module_get_metadata.argtypes = [pointer, text]
    library.openmpt_module_get_metadata.restype = pointer
    library.openmpt_module_get_duration_seconds.argtypes = [pointer]
    library.openmpt_module_get_duration_seconds.restype = ctypes.c_double
    read = library.openmpt_module_read_float_mono
    read.argtypes, read.restype = [pointer, number, ctypes.c_size_t, pointer], ctypes.c_size_t
    library.openmpt_module_set_repeat_count.argtypes = [pointer, number]
    read = library.openmpt_module_read_interleaved_float_stereo
    read.argtypes, read.restype = [pointer, number, ctypes.c_size_t, pointer], ctypes.c_size_t
    return library


def require() -> None:
    """Raises ModuleNotFoundError, with the command that installs it, without libopenmpt."""
    _library()


def is_installed() -> bool:
    """Whether libopenmpt is there."""
    try:
        require()
    except ModuleNotFoundError:
        return False
    return True


class Module:
    """A module at its beginning. What is played once cannot be played again: open another."""

    def __init__(self, data: bytes, name: str) -> None:
        """Opens the bytes of a file.

        Raises AudioFileError, with `name`, where libopenmpt cannot use them, and
        ModuleNotFoundError without libopenmpt.
        """
        self._library, self.name = _library(), name
        message = ctypes.c_void_p()
        # Neither log nor errors go to the screen: what is wrong comes back as a message.
        log = ctypes.cast(self._library.openmpt_log_func_silent, ctypes.c_void_p)
        store = ctypes.cast(self._library.openmpt_error_func_store, ctypes.c_void_p)
        self._module = None
        self._ext = self._library.openmpt_module_ext_create_from_memory(
            data, len(data), log, None, store, None, None, ctypes.byref(message), None
        )
        if not self._ext:
            said = self._text(message.value) or "unknown fault"
            raise AudioFileError(f"{name}: no module that libopenmpt can play ({said})")
        self._module = self._library.openmpt_module_ext_get_module(self._ext)
        self._table = (ctypes.c_void_p * _FUNCTIONS)()
        if not self._library.openmpt_module_ext_get_interface(
            self._ext, _INTERACTIVE, self._table, ctypes.sizeof(self._table)
        ):
            raise AudioFileError(
                f"{name}: this libopenmpt cannot mute instruments; expected 0.3 on"
            )

    def __del__(self) -> None:
        if getattr(self, "_ext", None):
            self._library.openmpt_module_ext_destroy(self._ext)

    def _text(self, pointer: int | None) -> str:
        if not pointer:
            return ""
        text = ctypes.string_at(pointer).decode("utf-8", "replace")
        self._library.openmpt_free_string(pointer)
        return text

    def _call(self, place: int, *values: Any, types: tuple[Any, ...]) -> int:
        function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *types)(self._table[place])
        return function(self._ext, *values)

    @property
    def seconds(self) -> float:
        """How long it plays, once through."""
        return self._library.openmpt_module_get_duration_seconds(self._module)

    @property
    def channels(self) -> int:
        """The number of its channels."""
        return self._library.openmpt_module_get_num_channels(self._module)

    @functools.cached_property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples, in order; where authors write greetings, these are no names."""
        count = self._library.openmpt_module_get_num_samples(self._module)
        name = self._library.openmpt_module_get_sample_name
        return tuple(self._text(name(self._module, number)) for number in range(count))

    @functools.cached_property
    def instruments(self) -> tuple[str, ...]:
        """The names of what can be muted: its instruments, or its samples if it has none."""
        count = self._library.openmpt_module_get_num_instruments(self._module)
        name = self._library.openmpt_module_get_instrument_name
        names = tuple(self._text(name(self._module, number)) for number in range(count))
        return names or self.samples

    def pattern(self, number: int) -> UInt8[np.ndarray, "row channel command"]:
        """What stands in a pattern: note (1 = C-0, above 127 no note), instrument (from 1), volume
        effect, effect, volume, parameter; 0 is nothing, the effects are numbered as in OpenMPT.
        """
        rows = self._library.openmpt_module_get_pattern_num_rows(self._module, number)
        cell = self._library.openmpt_module_get_pattern_row_channel_command
        places = np.ndindex(rows, self.channels, COMMANDS)
        values = [cell(self._module, number, *place) for place in places]
        return np.array(values, np.uint8).reshape(rows, self.channels, COMMANDS)

    def sequence(self) -> list[int]:
        """The numbers of its patterns in the order in which they stand in its list of orders."""
        library, module = self._library, self._module
        count = library.openmpt_module_get_num_patterns(module)
        orders = range(library.openmpt_module_get_num_orders(module))
        numbers = [library.openmpt_module_get_order_pattern(module, order) for order in orders]
        return [number for number in numbers if number < count]

    def metadata(self, key: str) -> str:
        """`title`, `artist`, `type`, `tracker`, `message` and others of libopenmpt's keys."""
        pointer = self._library.openmpt_module_get_metadata(self._module, key.encode())
        return self._text(pointer)

    def mute_channel(self, number: int) -> None:
        """Silences what the patterns play on a channel, counted from 0."""
        self._call(_MUTE_CHANNEL, number, 1, types=(ctypes.c_int32, ctypes.c_int))

    def play_note(self, instrument: int, midi: int) -> None:
        """Starts a note of an instrument, both counted from 0, on a channel of its own; 60 is what
        trackers call C-5.
        """
        types = (ctypes.c_int32, ctypes.c_int32, ctypes.c_double, ctypes.c_double)
        self._call(_PLAY_NOTE, instrument, midi, 1.0, 0.0, types=types)

    def play(self, sample_rate_hz: int, channels: int = CHANNELS) -> Iterator[Block]:
        """What follows until its end; may be louder than full scale.

        One channel is not the mean of two, in which a voice that is "surround", one side of it
        upside down, would cancel.
        """
        if channels == 1:
            read = self._library.openmpt_module_read_float_mono
        else:
            read = self._library.openmpt_module_read_interleaved_float_stereo
        while True:
            block = np.zeros((BLOCK_SAMPLES, channels), np.float32)
            count = read(self._module, sample_rate_hz, BLOCK_SAMPLES, block.ctypes.data)
            if not count:
                return
            yield block[:count]

    def follow(self) -> list[tuple[float, int, int]]:
        """Plays to the end; when, in s and within `STEP_S`, which row of which pattern begins."""
        read = self._library.openmpt_module_read_float_mono
        order = self._library.openmpt_module_get_current_order
        row = self._library.openmpt_module_get_current_row
        pattern = self._library.openmpt_module_get_order_pattern
        block, begun, last, samples = np.zeros(_STEP, np.float32), [], (-1, -1), 0
        # There it goes to the row where the song begins again, and stops.
        end = self.seconds * _FOLLOWED_HZ - _STEP
        while count := read(self._module, _FOLLOWED_HZ, _STEP, block.ctypes.data):
            now = order(self._module), row(self._module)
            if now != last and samples < end:
                begun.append((samples / _FOLLOWED_HZ, pattern(self._module, now[0]), now[1]))
                last = now
            samples += count
        return begun
