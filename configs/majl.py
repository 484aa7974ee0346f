"""MAJL: joint separation and pitch in two stages (arXiv 2501.03689).

    python -m majl_jax.prepare --dataset=chorales,chorales_stems,chorales_pitch --tracks=train=30,valid=2,test=8
    python -m majl_jax.main --config=configs/majl.py:quickstart --workdir=runs/majl

`:quickstart` minutes on two cores; `:smoke` seconds, for tests; `:paper` the networks at their published sizes with the authors'
hyper-parameters as far as they are known (those of DJCM, their earlier code; MAJL's own are not public).
"""

from ml_collections import ConfigDict

PRESETS = ("quickstart", "smoke", "paper")


def get_config(preset: str = "quickstart") -> ConfigDict:
    """The config of a preset; any field can be set on the command line, as --config.stages.student.steps=7."""
    if preset not in PRESETS:
        raise ValueError(
            f"configs/majl.py has no preset {preset!r}; expected one of {', '.join(PRESETS)}"
        )
    config = _paper()
    if preset == "quickstart":
        _quickstart(config)
    elif preset == "smoke":
        _quickstart(config)
        _smoke(config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "majl"
    config.seed = 0

    # Which stages run, in this order. The student has to follow its teacher; `pipeline` (both networks trained apart) and
    # `naive_joint` (the cascade, one stage) are baselines that stand alone.
    config.run = ("pipeline", "teacher", "student")
    config.stages = ConfigDict()
    for name in ("pipeline", "naive_joint", "teacher", "student"):
        # 250 epochs of 2,893 segments of MIR-1K's training clips in batches of 16.
        config.stages[name] = ConfigDict({"steps": 45_000, "batch_size": 16, "learning_rate": 5e-4})

    config.data = ConfigDict()
    config.data.directory = "data/prepared"  # where majl_jax.prepare put the data sets
    config.data.labelled = "chorales"  # stems and pitch: what MIR-1K is to the paper
    config.data.stems_only = "chorales_stems"  # stems, no pitch: MUSDB18; "" leaves it out
    config.data.pitch_only = "chorales_pitch"  # mixture and pitch: MIR_ST500; "" leaves it out
    config.data.labelled_share = 1 / 3  # of the student's examples, the rest is pseudo-labelled
    config.data.target = "soprano"  # the stem to separate and to hear
    config.data.sample_rate_hz = 16_000
    config.data.hop_samples = 320  # 20 ms: label frames, STFT frames and pitch frames are one grid
    config.data.segment_samples = 40_960  # 2.56 s, 128 frames
    # The mixture is this times the sum of the stems. 0.5 with two stems is the authors' (L + R) / 2, which leaves the target 6 dB
    # above its share in the mixture, out of reach of a mask.
    config.data.mixture_gain = 1.0
    config.data.reader = "tf.data"  # "memory": from array_record shards, without TensorFlow

    config.separator = ConfigDict()
    config.separator.name = "unet"
    config.separator.channels = (16, 32, 64, 128, 256, 512)  # Jansson et al. 2017
    config.separator.window_samples = 1024
    config.separator.dropout = 0.5
    config.separator.norm_momentum = 0.99
    config.separator.dtype = "float32"  # of the convolutions; "bfloat16" on accelerators

    config.pitch = ConfigDict()
    config.pitch.name = "crepe"
    config.pitch.capacity = "full"  # tiny, small, medium, large, full
    config.pitch.multiplier = 0  # above 0: that many times 32, 4, 4, 4, 8, 16 filters instead
    config.pitch.dropout = 0.25
    config.pitch.frame_floor = (
        1e-4  # of a frame's standard deviation; the published weights use 1e-8
    )
    config.pitch.norm_momentum = 0.99
    config.pitch.dtype = "float32"
    config.pitch.frames_per_segment = (
        128  # frames whose pitch loss is taken; fewer are drawn at random
    )

    config.stop_gradient_between = False  # True: the pitch loss does not reach the separator
    config.losses = ConfigDict()
    config.losses.separation = "l1_wav"  # l1_mag, neg_sdr, neg_si_sdr
    config.losses.positive_weight = 10.0  # of the labelled bin against the others (alpha)
    config.losses.target_width_cents = 0.0  # 0: one-hot (DJCM); 25: Gaussian (CREPE)
    config.weights = ConfigDict({"separation": 1.0, "pitch": 1.0})  # DJCM: w and 2 - w, swept

    config.pseudo_labels = ConfigDict()
    config.pseudo_labels.threshold = 0.7  # the paper's best
    config.pseudo_labels.granularity = "frame"  # or "segment": the pitch of whole tracks

    config.optimizer = ConfigDict()
    config.optimizer.clip_norm = 3.0
    config.optimizer.schedule = "step"  # constant, step, cosine
    config.optimizer.decay_factor = 0.95
    config.optimizer.decay_every_steps = 900  # 5 epochs
    config.optimizer.warmup_steps = 0  # of the cosine schedule

    config.evaluation = ConfigDict()
    config.evaluation.pitch_threshold = 0.5  # below it a frame is unvoiced
    config.evaluation.valid_tracks = 0  # 0: all of the split
    config.evaluation.test_tracks = 0
    config.evaluation.overlap = 0.5  # of the segments that a track is cut into
    config.evaluation.batch_size = 8  # segments per call
    config.evaluation.examples = 4  # tracks whose audio is kept for the report
    config.evaluation.bss_eval = True  # BSS Eval v4 as well, slow
    config.evaluation.select_best = True  # hand over the best by validation SDR + RPA, not the last

    config.train = ConfigDict()
    config.train.log_every_steps = 100
    config.train.evaluate_every_steps = 1800
    config.train.checkpoint_every_steps = 900
    config.train.keep_last = 2
    config.train.keep_best = 1
    config.train.on_nonfinite = "stop"  # "skip": leave such steps out, and count them
    return config


def _quickstart(config: ConfigDict) -> None:
    """Narrow networks, few steps, no dropout: they have no time to over-fit."""
    for stage in config.stages.values():
        stage.update(steps=300, batch_size=8, learning_rate=4e-3)
    config.stages.student.steps = 700
    config.separator.update(channels=(8, 16, 32, 64, 128, 256), dropout=0.0, norm_momentum=0.9)
    config.pitch.update(multiplier=1, dropout=0.0, norm_momentum=0.9, frames_per_segment=32)
    config.losses.target_width_cents = 25.0
    config.optimizer.update(schedule="cosine", warmup_steps=20)
    config.evaluation.update(valid_tracks=2, test_tracks=8, examples=2)
    config.evaluation.update(overlap=0.25, select_best=False, bss_eval=False)
    config.train.update(log_every_steps=50, evaluate_every_steps=150, checkpoint_every_steps=150)


def _smoke(config: ConfigDict) -> None:
    """A few steps of the smallest networks: does every part run?"""
    for stage in config.stages.values():
        stage.update(steps=2, batch_size=4)
    config.separator.channels = (2, 2, 2, 2, 2, 2)
    config.pitch.frames_per_segment = 4
    config.evaluation.update(valid_tracks=1, test_tracks=1, examples=1)
    config.train.update(log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=1)
