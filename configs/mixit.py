"""MixIT: separation learnt from mixtures alone, then from few songs with stems (arXiv 2505.07631).

    python -m majl_jax.prepare --dataset=band --sample_rate_hz=8000 --hop_samples=128 \\
        --output=data/prepared/mixit --tracks=train=46,valid=4,test=1
    python -m majl_jax.prepare --dataset=band --sample_rate_hz=8000 --hop_samples=128 \\
        --output=data/prepared/mixit/few \\
        --tracks=train=4,valid=6,test=10
    python -m majl_jax.main --config=configs/mixit.py:quickstart --workdir=runs/mixit

Real songs in the place of the rendered ones, after `apt install fretsonfire-songs-muldjord
fretsonfire-songs-sectoid`: prepare fretsonfire (--source=/usr/share/games/fretsonfire/data/songs)
in the place of band, both times, and set --config.data.unlabelled=fretsonfire and
--config.data.labelled="few/fretsonfire: guitar, rest".

`:quickstart` minutes on two cores; `:experiment` the tables of experiments/mixit; `:smoke`
seconds, for tests; `:paper` the network of medium size and the protocol of the paper's code,
`:paper_small` and `:paper_large` its other sizes.
"""

from ml_collections import ConfigDict

from majl_jax.models.band_split import BANDS_44_1_KHZ, PRESETS

SIZES = {"paper": "medium", "paper_small": "small", "paper_large": "large"}


def get_config(preset: str = "quickstart") -> ConfigDict:
    """The config of a preset; any field can be set on the command line, as
    --config.stages.pretrain.assignment=least_squares.
    """
    small = {"quickstart": _quickstart, "experiment": _experiment, "smoke": _smoke}
    if preset not in {**SIZES, **small}:
        raise ValueError(
            f"configs/mixit.py has no preset {preset!r}; expected one of"
            f" {', '.join({**small, **SIZES})}"
        )
    config = _paper(SIZES.get(preset, "medium"))
    if preset in small:
        _quickstart(config)
        small[preset](config)
    return config


def _paper(size: str) -> ConfigDict:
    config = ConfigDict()
    config.recipe = "mixit"
    config.seed = 0

    # Which stages run, in this order: `supervised` follows `pretrain`, `scratch` is the baseline,
    # from fresh parameters.
    config.run = ("pretrain", "supervised")
    config.stages = ConfigDict()
    rate = 5e-4 if size == "large" else 1e-3
    config.stages.pretrain = ConfigDict()
    config.stages.pretrain.steps = 152_850
    config.stages.pretrain.batch_size = 256  # segments: 128 mixtures of two
    config.stages.pretrain.accumulate_steps = 1  # batches per update
    config.stages.pretrain.assignment = "exhaustive"  # "least_squares" is the paper's
    config.stages.pretrain.snr_db = (-5.0, 5.0)  # of the first mixture to the second
    config.stages.pretrain.max_snr_db = 30.0
    # The learning rate rises to its peak, and from update decay_from on falls by a factor at every
    # so many updates.
    config.stages.pretrain.update(
        learning_rate=rate,
        warmup_steps=4000,
        decay_from=4001,
        decay_every=2038,
        decay_factor=0.965,
    )
    for name in ("supervised", "scratch"):
        stage = config.stages[name] = ConfigDict()
        stage.steps = 99_000
        stage.batch_size = 32
        stage.accumulate_steps = 1
        stage.mixing = "dynamic"  # of stems of different songs; "none": as the songs are
        stage.drop_probability = 0.05  # of a stem
        # At which stems are before their gains; "mean_abs" is what the authors compute
        stage.level = "rms"
        stage.gain_db = (-10.0, 10.0)
        stage.max_snr_db = 30.0
        stage.inactive_db = -60.0  # quieter stems, relative to the mixture, count as silent ...
        stage.inactive_weight = 0.1  # ... and so much
        stage.update(
            learning_rate=rate,
            warmup_steps=5000,
            decay_from=60_500,
            decay_every=220,
            decay_factor=0.98,
        )
    # A run, RUN:STAGE, a model file or weights that a stage starts from; supervised in the place of
    # pretrain's. docs/runs.md
    for stage in config.stages.values():
        stage.start = ""

    config.data = ConfigDict()
    config.data.directory = "data/prepared/mixit"  # where majl_jax.prepare put the data sets
    # Or several, with commas; of those with stems the mixtures alone are used
    config.data.unlabelled = "fma"
    # "SET: stem, stem=stem+stem; SET: ..."
    config.data.labelled = "musdb18_hq: bass, drums, other, vocals"
    config.data.sample_rate_hz = 44_100
    config.data.channels = 2
    config.data.hop_samples = 512
    config.data.segment_samples = 264_192  # 6 s, 516 frames
    config.data.reader = "tf.data"  # "memory": from array_record shards, without TensorFlow

    config.window_samples = 2048

    config.network = ConfigDict(PRESETS[size])
    config.network.outputs = 12  # of pretrain
    config.network.bands = BANDS_44_1_KHZ  # widths in bins
    config.network.kernel_size = 8
    config.network.order = "ft"  # frequency before time
    config.network.pos_enc = "nope"  # "rope": rotary
    config.network.decoder_tanh = "after_second"  # "after_first" is merlresearch/tf-locoformer's
    config.network.dropout = 0.1
    config.network.attention_dropout = 0.0
    config.network.attention = "auto"  # "cudnn" where it is, else "xla"
    # Compute the blocks again in the backward pass: "none", "dots" or "full"
    config.network.remat = "full"
    config.network.dtype = "bfloat16"  # of convolutions and matrix products

    config.optimizer = ConfigDict()  # AdamW
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 5.0  # of the gradients' global norm; 0: no clipping

    config.evaluation = ConfigDict()
    config.evaluation.valid_batches = 50
    config.evaluation.batch_size = 4  # segments per call
    config.evaluation.segment_samples = 528_896  # of test songs: 12 s ...
    config.evaluation.overlap = 0.5  # ... every 6 s
    config.evaluation.crossfade = False  # the mean of both where they overlap
    # best checkpoints whose mean is handed over if it validates better than the best and the last
    config.evaluation.average = 5
    # Score pretrain too, by the outputs that the validation songs choose
    config.evaluation.pretrained = True
    config.evaluation.examples = 2  # songs that the report lets one listen to

    config.train = ConfigDict()
    config.train.log_every_steps = 100
    config.train.evaluate_every_steps = 1000
    config.train.checkpoint_every_steps = 500
    config.train.keep_last = 2
    config.train.keep_best = 5
    config.train.on_nonfinite = "stop"  # "skip": leave such steps out, and count them
    return config


def _quickstart(config: ConfigDict) -> None:
    """Built-in music, mono at 8 kHz, a small network, few steps."""
    config.stages.pretrain.update(steps=1500, batch_size=8)
    for name, steps in (("supervised", 300), ("scratch", 300)):
        config.stages[name].update(steps=steps, batch_size=4)
    for stage in config.stages.values():
        half = stage.steps // 2
        stage.update(warmup_steps=50, decay_from=half, decay_every=half // 10, decay_factor=0.8)
    config.data.unlabelled = "band"
    config.data.labelled = "few/band: bass, drums, other"
    config.data.update(sample_rate_hz=8000, channels=1, hop_samples=128, segment_samples=8192)
    config.window_samples = 512
    bands = (2,) * 8 + (4,) * 8 + (8,) * 4 + (32,) * 5 + (17,)
    config.network.update(
        outputs=6,
        layers=1,
        features=24,
        attention_features=24,
        heads=2,
        norm_groups=2,
        hidden=32,
        kernel_size=4,
        bands=bands,
    )
    config.network.update(dropout=0.0, remat="none", dtype="float32")
    config.evaluation.update(valid_batches=12, segment_samples=32_768, average=3)
    config.train.update(
        log_every_steps=25, evaluate_every_steps=100, checkpoint_every_steps=100, keep_best=3
    )


def _experiment(config: ConfigDict) -> None:
    config.evaluation.examples = 0


def _smoke(config: ConfigDict) -> None:
    """A few steps of the smallest network: does every part run?"""
    for stage in config.stages.values():
        stage.update(steps=2, batch_size=8, warmup_steps=2, decay_from=2)
    config.data.segment_samples = 4096
    config.network.update(
        outputs=4,
        layers=1,
        features=8,
        attention_features=8,
        heads=1,
        norm_groups=1,
        hidden=8,
        kernel_size=2,
        bands=(32,) * 7 + (33,),
    )
    config.evaluation.update(
        valid_batches=1, batch_size=2, segment_samples=8192, examples=1, average=2
    )
    config.train.update(
        log_every_steps=1, evaluate_every_steps=1, checkpoint_every_steps=1, keep_best=2
    )
