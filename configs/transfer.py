"""Transfer: deep clustering on a large set of stems, then masks for a small one (arXiv
2010.12650).

    python -m majl_jax.prepare --dataset=chorales --sample_rate_hz=8000 --hop_samples=128 \\
        --output=data/prepared/transfer --tracks=train=60,valid=4,test=1
    python -m majl_jax.prepare --dataset=choir --sample_rate_hz=8000 --hop_samples=128 \\
        --output=data/prepared/transfer --tracks=train=4,valid=3,test=8
    python -m majl_jax.main --config=configs/transfer.py:quickstart --workdir=runs/transfer

`:quickstart` minutes on two cores; `:experiment` the tables of experiments/transfer; `:smoke`
seconds, for tests; `:paper` the network and the protocol of the paper, as far as they are known.
"""

from ml_collections import ConfigDict

PRESETS = ("quickstart", "smoke", "experiment", "paper")


def get_config(preset: str = "quickstart") -> ConfigDict:
    """The config of a preset; any field can be set on the command line, as
    --config.stages.finetune.trained=mask.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"configs/transfer.py has no preset {preset!r}; expected one of {', '.join(PRESETS)}"
        )
    config = _paper()
    if preset != "paper":
        _quickstart(config)
    if preset == "experiment":
        _experiment(config)
    if preset == "smoke":
        _smoke(config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "transfer"
    config.seed = 0

    # Which stages run, in this order: `finetune` follows `pretrain`, `scratch` is the baseline of
    # as many steps, from fresh parameters.
    config.run = ("pretrain", "finetune")
    config.stages = ConfigDict()
    for name, steps in (("pretrain", 10_000), ("finetune", 2_000), ("scratch", 12_000)):
        config.stages[name] = ConfigDict({"steps": steps, "batch_size": 24, "learning_rate": 1e-3})
        # A run, RUN:STAGE, a model file or weights that it starts from; `finetune` without its mask
        # layer, and then needs no `pretrain`. docs/runs.md
        config.stages[name].start = ""
    # Data sets and their sources, "SET: source, source=stem+stem; SET: ..."; every set of a stage
    # has the same sources.
    config.stages.pretrain.data = "musdb18: vocals, accompaniment=bass+drums+other"
    for name in ("finetune", "scratch"):
        config.stages[name].data = "bach10: violin, clarinet, saxophone, bassoon"
    # "coherent": the sources of one place of one song; "incoherent": each of another song.
    # Bach10's training is incoherent.
    config.stages.pretrain.mixing = "coherent"
    config.stages.finetune.mixing = "incoherent"
    config.stages.scratch.mixing = "incoherent"
    # none, pitch (by -3 to 3 semitones), stretch (0.8 to 1.2 times as fast): of each source before
    # they are mixed.
    for name in config.stages:
        config.stages[name].augmentation = "none"
        config.stages[name].weights = ConfigDict({"deep_clustering": 0.01, "mask_inference": 0.99})
        config.stages[name].weights.whitened_k_means = 0.0  # not in the paper
    config.stages.pretrain.weights.update(deep_clustering=1.0, mask_inference=0.0)
    config.stages.finetune.trained = "whole"  # "mask": the mask layer alone, with weights 0 and 1
    config.stages.scratch.trained = "whole"

    config.data = ConfigDict()
    config.data.directory = "data/prepared/transfer"  # where majl_jax.prepare put the data sets
    config.data.sample_rate_hz = 16_000
    config.data.hop_samples = 128
    config.data.segment_samples = 160_000  # 10 s, 1251 frames
    config.data.reader = "tf.data"  # "memory": from array_record shards, without TensorFlow

    config.window_samples = 512  # square root of a Hann window

    config.network = ConfigDict()  # 26,719,656 parameters with 2 sources (PyTorch's count)
    config.network.units = 500  # per direction
    config.network.layers = 4
    config.network.dropout = 0.3  # between layers; the paper does not say
    config.network.embedding = 20
    config.network.norm = "batch"  # one mean and variance; "instance": of each excerpt
    config.network.dtype = "float32"  # of the matrix products; "bfloat16" on accelerators
    config.network.implementation = "auto"  # of the BLSTM: cuDNN on a GPU, else scan

    # Of an excerpt in the clustering loss at a time; fewer need less memory
    config.chunk_frames = 417
    # The trunk under a mask layer that is trained alone: "eval" leaves its statistics as they are;
    # "train" is nussl's loop.
    config.frozen_trunk = "eval"

    config.augmentation = ConfigDict()
    config.augmentation.semitones = 3.0
    config.augmentation.rates = (0.8, 1.2)

    config.optimizer = ConfigDict()  # Adam
    config.optimizer.clip_percentile = 10.0  # AutoClip
    config.optimizer.clip_history_steps = 12_000  # of a whole stage
    config.optimizer.plateau_factor = 0.5  # of the learning rate ...
    # ... after more than so many validations without a lower loss
    config.optimizer.plateau_patience = 5

    config.evaluation = ConfigDict()
    config.evaluation.valid_excerpts = 100
    config.evaluation.test_excerpts = 1000  # the same ones for every model
    config.evaluation.mixing = "coherent"
    config.evaluation.threshold_db = -45.0  # every source of an excerpt is louder
    config.evaluation.batch_size = 8  # excerpts per call
    # Of the stage without masks: separated by k-means on its embedding
    config.evaluation.clustering_excerpts = 100
    config.evaluation.examples = 3  # excerpts that the report lets one listen to
    config.evaluation.select_best = True  # hand over the best by validation loss, not the last

    config.train = ConfigDict()
    config.train.log_every_steps = 50
    config.train.evaluate_every_steps = 100
    config.train.checkpoint_every_steps = 100
    config.train.keep_last = 2
    config.train.keep_best = 1
    config.train.on_nonfinite = "stop"  # "skip": leave such steps out, and count them
    return config


def _quickstart(config: ConfigDict) -> None:
    """Built-in music, 8 kHz, a small network, few steps."""
    config.stages.pretrain.update(steps=800, batch_size=8)
    config.stages.pretrain.data = "chorales: melody=soprano, accompaniment=alto+tenor+bass"
    for name, steps in (("finetune", 200), ("scratch", 1000)):
        config.stages[name].update(steps=steps, batch_size=8, mixing="coherent")
        config.stages[name].data = "choir: female, male"
    config.data.update(sample_rate_hz=8000, hop_samples=128, segment_samples=16_384)  # 2 s
    config.window_samples = 512
    config.network.update(units=64, layers=2, embedding=12)
    config.chunk_frames = 129
    config.evaluation.update(valid_excerpts=24, test_excerpts=200, clustering_excerpts=24)


def _experiment(config: ConfigDict) -> None:
    for name, steps in (("pretrain", 400), ("finetune", 100), ("scratch", 500)):
        config.stages[name].steps = steps
    config.evaluation.update(test_excerpts=1000, examples=0)
    config.train.update(evaluate_every_steps=50, checkpoint_every_steps=50)


def _smoke(config: ConfigDict) -> None:
    """A few steps of the smallest network: does every part run?"""
    for stage in config.stages.values():
        stage.update(steps=2, batch_size=4)
    config.data.update(segment_samples=8_192)
    config.network.update(units=8, layers=1, embedding=4)
    config.evaluation.update(valid_excerpts=2, test_excerpts=2, clustering_excerpts=2, examples=1)
    config.evaluation.batch_size = 2
    config.train.update(log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=1)
