"""Jukebox: a VQ-VAE learns to write a stem, then a second encoder to read it out of the mixture
(arXiv 2111.14200).

    python -m majl_jax.prepare --dataset=chorales,band --sample_rate_hz=8000 --hop_samples=64 \\
        --output=data/prepared/jukebox --tracks=train=40,valid=4,test=8
    python -m majl_jax.main --config=configs/jukebox.py:quickstart --workdir=runs/jukebox/drums

`:quickstart` minutes on two cores; `:experiment` the tables of experiments/jukebox; `:smoke`
seconds, for tests; `:paper` level 0 of Jukebox and the protocol of the paper, from Jukebox's
weights (`python -m majl_jax.weights --architecture=jukebox_vqvae --source=...
--output=data/weights/jukebox_level0.npz`); `:released_code` what the authors' code did. A run is
of one stem, --config.data.stem=...; `majl_jax.separate` takes a folder of such runs.
"""

from ml_collections import ConfigDict

PRESETS = ("quickstart", "smoke", "experiment", "paper", "released_code")


def get_config(preset: str = "quickstart") -> ConfigDict:
    """The config of a preset; any field can be set on the command line, as
    --config.codebook_update=frozen.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"configs/jukebox.py has no preset {preset!r}; expected one of {', '.join(PRESETS)}"
        )
    config = _paper()
    if preset == "released_code":
        config.codebook_update = "frozen"
        config.stages.encoder.loss = "lmix"
        config.data.shared_blend = False
        config.evaluation.exact = False
    elif preset != "paper":
        _quickstart(config)
    if preset == "smoke":
        _smoke(config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "jukebox"
    config.seed = 0

    # Which stages run, in this order: `music` learns a VQ-VAE on other music, as OpenAI did;
    # `vqvae` goes on with one stem (from the stage before it, a file of weights, or nothing);
    # `encoder` learns to find that stem's latents in the mixture.
    config.run = ("vqvae", "encoder")
    config.stages = ConfigDict()
    for name in ("music", "vqvae", "encoder"):
        config.stages[name] = ConfigDict({"steps": 80_000, "batch_size": 4, "learning_rate": 3e-4})
        # Converted weights (.npz of majl_jax.weights --architecture=jukebox_vqvae), RUN or
        # RUN:STAGE that it starts from; "" without. docs/runs.md
        config.stages[name].start = ""
    config.stages.vqvae.start = "data/weights/jukebox_level0.npz"
    # "random", as the paper says; "pretrained", of the file of weights or of `music`; "stem", that
    # of `vqvae`.
    config.stages.encoder.init = "random"
    config.stages.encoder.loss = "mse"  # the paper's; "lmix" is what its code computes

    config.data = ConfigDict()
    config.data.directory = "data/prepared/jukebox"  # where majl_jax.prepare put the data sets
    config.data.music = "fma"  # of `music`: any set, its mixtures are heard
    config.data.labelled = "musdb18_hq"
    config.data.stem = "drums"  # which of its stems
    config.data.sample_rate_hz = 44_100
    config.data.channels = 2  # of the data; the network is mono and hears a random blend of both
    config.data.shared_blend = True  # mixture and stem by the same blend
    config.data.hop_samples = 512  # of the prepared data; the network has its own
    config.data.segment_samples = 393_216
    config.data.reader = "tf.data"  # "memory": from array_record shards, without TensorFlow

    config.network = ConfigDict()  # level 0 of Jukebox: 900,033 parameters, a latent per 8 samples
    config.network.width = 64
    config.network.depth = 8  # residual blocks per halving, of dilations 1, 3, 9, ...
    config.network.halvings = (3,)  # of each of its parts
    config.network.latent = 64
    # Compute the blocks again in the backward pass; "none": keep them
    config.network.remat = "full"
    config.network.dtype = "float32"  # of the convolutions; "bfloat16" on accelerators

    config.codebook = ConfigDict()
    config.codebook.codes = 2048
    config.codebook.decay = 0.99
    config.codebook.restart_below = 1.0  # uses per step, in the mean
    # "frozen": stays as it is, which is what the authors' two devices did
    config.codebook_update = "ema"

    config.losses = ConfigDict()
    config.losses.l2 = 1.0
    config.losses.linf = 0.02  # of the 2048 largest squared errors
    config.losses.top = 2048
    config.losses.spectral = 1.0
    config.losses.commit = 0.02
    # (window, hop, FFT) of the spectral term.
    config.losses.resolutions = ((1200, 240, 2048), (600, 120, 1024), (240, 50, 512))
    # What errors are divided by: the variance and the mean spectral norm of the training excerpts;
    # 0: estimated before training.
    config.losses.variance = 0.0
    config.losses.spectral_norm = 0.0

    config.optimizer = ConfigDict()  # Adam
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 1.0  # of the gradients' global norm; 0: no clipping
    # Moving average of the parameters, which is what is evaluated; 0: none
    config.optimizer.average_decay = 0.9995

    config.evaluation = ConfigDict()
    config.evaluation.valid_tracks = 0  # 0: all of the split
    config.evaluation.test_tracks = 0
    # segments overlap by what an output depends on; False: end to end (separate: --overlap=0)
    config.evaluation.exact = True
    config.evaluation.segment_samples = 393_216
    config.evaluation.batch_size = 1
    config.evaluation.examples = 2  # songs that the report lets one listen to
    config.evaluation.select_best = True  # hand over the best by SDR, not the last

    config.train = ConfigDict()
    config.train.log_every_steps = 100
    config.train.evaluate_every_steps = 5000
    config.train.checkpoint_every_steps = 500
    config.train.keep_last = 2
    config.train.keep_best = 1
    config.train.on_nonfinite = "stop"  # "skip": leave such steps out, and count them
    return config


def _quickstart(config: ConfigDict) -> None:
    """Built-in music, mono at 8 kHz, a small network, few steps."""
    config.run = ("music", "vqvae", "encoder")
    config.stages.vqvae.start = ""
    for name, steps in (("music", 300), ("vqvae", 150), ("encoder", 800)):
        config.stages[name].update(steps=steps, batch_size=4, learning_rate=1e-3)
    config.data.music = "chorales"
    config.data.labelled = "band"
    config.data.update(sample_rate_hz=8000, channels=1, hop_samples=64, segment_samples=8192)
    config.network.update(width=24, depth=4, latent=24, remat="none")
    config.codebook.codes = 256
    config.losses.update(top=256, resolutions=((240, 48, 512), (120, 24, 256), (48, 10, 128)))
    config.optimizer.average_decay = 0.99
    config.evaluation.update(valid_tracks=4, test_tracks=8, segment_samples=32_768)
    config.train.update(log_every_steps=25, evaluate_every_steps=100, checkpoint_every_steps=100)


def _smoke(config: ConfigDict) -> None:
    """A few steps of the smallest network: does every part run?"""
    for stage in config.stages.values():
        stage.update(steps=2, batch_size=4)
    config.data.segment_samples = 2048
    config.network.update(width=8, depth=2, latent=8)
    config.codebook.codes = 32
    config.losses.resolutions = ((64, 16, 128),)
    config.evaluation.update(valid_tracks=1, test_tracks=1, segment_samples=4096, examples=1)
    config.train.update(log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=1)
