"""SS-MPE: multi-pitch estimation from labels and from what must not change them (arXiv
2506.23371).

    python -m majl_jax.prepare --dataset=chorales,quartets,quartets_unlabelled,drums \\
        --sample_rate_hz=22050 --hop_samples=1024 \\
        --output=data/prepared/multi_pitch --tracks=train=16,valid=4,test=8
    python -m majl_jax.main --config=configs/ss_mpe.py:quickstart --workdir=runs/ss_mpe

`:quickstart` minutes on two cores; `:experiment`, the same with excerpts of 86 frames, for the
tables of experiments/ss_mpe; `:smoke` seconds, for tests; `:paper` front end, network and protocol
as the authors released them (their tag v0.2.0).
"""

from ml_collections import ConfigDict

PRESETS = ("quickstart", "smoke", "experiment", "paper")


def get_config(preset: str = "quickstart") -> ConfigDict:
    """The config of a preset; any field can be set on the command line, as
    --config.weights.energy=1.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"configs/ss_mpe.py has no preset {preset!r}; expected one of {', '.join(PRESETS)}"
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
    config.recipe = "ss_mpe"
    config.seed = 0

    # Which stages run, in this order. `reference` starts afresh; `finetune` takes over the
    # parameters of the stage before it.
    config.run = ("reference",)
    config.stages = ConfigDict()
    # Items of a batch from the labelled and from the unlabelled set. The paper's: 8 + 0 (closed),
    # 8 + 16, 8, 4, 2 (open).
    config.stages.reference = ConfigDict(
        {"steps": 10_000, "labelled": 8, "unlabelled": 0, "learning_rate": 5e-4}
    )
    config.stages.finetune = ConfigDict(
        {"steps": 10_000, "labelled": 8, "unlabelled": 16, "learning_rate": 1e-4}
    )
    for stage in config.stages.values():
        # Times the weights of all terms but `supervised`; 0: labels only
        stage.self_supervised = 1.0
        # A run, RUN:STAGE, a model file or weights that it starts from; `finetune` needs no
        # `reference` then. docs/runs.md
        stage.start = ""

    config.data = ConfigDict()
    config.data.directory = "data/prepared/multi_pitch"  # where majl_jax.prepare put the data sets
    # One set, or several with their shares, "fma: 3, musdb18_hq: 1". Of unlabelled ones, which are
    # used where a stage has unlabelled items, the labels are not looked at.
    config.data.labelled = "urmp_mixes"
    config.data.unlabelled = "fma"
    config.data.percussion = "e_gmd"  # drums, for the percussion term
    config.data.sample_rate_hz = 22_050
    config.data.hop_samples = 256  # 11.6 ms: label frames and CQT frames are one grid
    # 3.994 s, 344 frames; the authors' 88,200 are no whole number of hops
    config.data.segment_samples = 88_064
    # How many offsets an excerpt of a record is ever taken from; 0: a new one each time. The
    # authors' loader repeats about a dozen.
    config.data.distinct_offsets = 0
    config.data.reader = "tf.data"  # "memory": from array_record shards, without TensorFlow

    config.front_end = ConfigDict()  # harmonic CQT
    config.front_end.fmin_hz = 27.5
    config.front_end.bins = 440
    config.front_end.bins_per_octave = 60
    config.front_end.harmonics = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
    # Filters above half the sample rate are kept and alias, as in the released code; False: their
    # bins are empty.
    config.front_end.aliased = True

    config.network = ConfigDict()  # the autoencoder of Timbre-Trap, 1,303,753 parameters
    config.network.complexity = 3  # doubles the channels
    config.network.latent = 128
    config.network.skip_connections = False
    config.network.dtype = "float32"  # of the convolutions; "bfloat16" on accelerators
    # Of an untrained network; lower: it leaves out the steps that learn silence
    config.network.initial_salience = 0.5
    config.network.remat = False  # True: recompute activations backwards, less memory, more time

    # Weights of the terms; 0 leaves a term, and what only it needs, out.
    config.weights = ConfigDict()
    config.weights.supervised = 1.0
    config.weights.timbre = 1.0  # random equalisation must not change the output
    config.weights.percussion = 1.0  # nor must added drums
    config.weights.geometric = 1.0  # shifts and stretches must move it along
    # The output resembles the harmonic average of the CQT; 1 in the paper's energy runs
    config.weights.energy = 0.0
    config.weights.sparsity = 0.0  # 1 in the paper's energy runs
    # These two, with sparsity, are the earlier paper's (arXiv 2402.15569)
    config.weights.support = 0.0
    config.weights.harmonic = 0.0
    config.weights.content = 0.0
    config.weights.contrastive = 0.0
    config.weights.entropy = 0.0
    # Not in the paper: against blank output on unlabelled sound, see experiments/ss_mpe.
    config.weights.anchored = 0.0  # labelled sound is mixed into unlabelled: its pitches are there
    config.weights.activity = 0.0  # as many pitches per frame as in labelled sound, at least
    config.weights.variance = 0.0  # the output varies over frames
    config.weights.strict_positive = 0.0  # unmistakable partials are pitches

    config.self_supervision = ConfigDict()
    # How outputs are compared: bce, divergence, categorical
    config.self_supervision.consistency = "bce"
    # True: the output for the untouched sound is a fixed target
    config.self_supervision.stop_gradient = False
    # Above 0: that target comes from a moving average of the parameters
    config.self_supervision.teacher_decay = 0.0
    # True: labelled bins count as much as the empty ones of their frame
    config.self_supervision.weight_positives = False
    config.self_supervision.equalisation = "parabolic"  # gaussian: the earlier paper's
    config.self_supervision.percussion_volume = 1.0  # at most, of the drums' peak
    config.self_supervision.shift_octaves = 1.0  # at most, up or down
    config.self_supervision.shift_share = 0.25  # of an excerpt, at most, earlier or later
    config.self_supervision.stretch = 2.0  # at most, longer or shorter
    # True: frames from outside of a moved excerpt, on both sides silence, do not count
    config.self_supervision.mask_padding = False
    config.self_supervision.energy_on = "unlabelled"  # items of energy and sparsity; "all"
    # Frames below it are silence to content, contrastive and activity
    config.self_supervision.sounding_rms = 0.01
    # Activity: of the labelled frames' mean number of active bins
    config.self_supervision.active_share = 0.5
    # Variance: the standard deviation of a bin over frames, at least
    config.self_supervision.deviation = 0.1
    # Of the labelled sound in the mixture, against the unlabelled
    config.self_supervision.anchor_gain_db = 0.0

    config.optimizer = ConfigDict()  # AdamW
    config.optimizer.clip_norm = 1.0  # of the gradients' global norm; 0: no clipping
    config.optimizer.weight_decay = 0.01
    config.optimizer.decoder_factor = 0.5  # of the learning rate
    config.optimizer.warmup_steps = 400

    config.evaluation = ConfigDict()
    # Prepared sets that are scored; the first picks the best checkpoint by its F1
    config.evaluation.sets = ("urmp_mixes",)
    config.evaluation.test_sets = ("bach10", "su", "trios", "musicnet", "guitarset")
    config.evaluation.valid_tracks = 0  # 0: all of the split
    config.evaluation.test_tracks = 0
    config.evaluation.examples = 2  # tracks of each set that the report lets one look at
    # "basic_pitch": its published model hears the test tracks too (extra `basic_pitch`)
    config.evaluation.references = ""
    config.evaluation.threshold = 0.5
    config.evaluation.batch_size = 4  # windows per call
    config.evaluation.window_frames = 512
    config.evaluation.select_best = True  # hand over the best by F1, not the last

    config.train = ConfigDict()
    config.train.log_every_steps = 50
    config.train.evaluate_every_steps = 250
    config.train.checkpoint_every_steps = 250
    config.train.keep_last = 2
    config.train.keep_best = 1
    config.train.on_nonfinite = "stop"  # "skip": leave such steps out, and count them
    return config


def _quickstart(config: ConfigDict) -> None:
    """Built-in music, a smaller front end and network, few steps."""
    # With every term of weight 1 from the first step on, so small a network stays blank: labels
    # alone come first.
    config.run = ("reference", "finetune")
    for stage in config.stages.values():
        stage.update(steps=400, labelled=4, unlabelled=0, learning_rate=1e-3)
    config.stages.reference.self_supervised = 0.0
    config.weights.update(timbre=0.3, geometric=0.3, percussion=0.3)
    config.data.update(labelled="chorales", unlabelled="quartets_unlabelled", percussion="drums")
    config.data.update(hop_samples=1024, segment_samples=22_528)  # 1 s, 22 frames of 46 ms
    # C2 to B6, three bins per semitone.
    config.front_end.update(fmin_hz=65.406, bins=162, bins_per_octave=36, aliased=False)
    config.network.update(complexity=1, latent=32, initial_salience=0.02)
    config.optimizer.warmup_steps = 20
    config.evaluation.update(sets=("chorales", "quartets"), test_sets=("chorales", "quartets"))
    config.evaluation.update(valid_tracks=4, test_tracks=8, window_frames=300)
    config.train.update(log_every_steps=25, evaluate_every_steps=100, checkpoint_every_steps=100)


def _experiment(config: ConfigDict) -> None:
    """What carries a claim: excerpts nearly as long as the 101 frames the network hears, compared
    where there is sound.
    """
    config.data.segment_samples = 88_064  # 4 s, 86 frames, in time what `:paper` has
    config.self_supervision.mask_padding = True


def _smoke(config: ConfigDict) -> None:
    """A few steps of the smallest network: does every part run?"""
    for stage in config.stages.values():
        stage.update(
            steps=2, labelled=2, unlabelled=2, learning_rate=1e-3, self_supervised=1.0
        )  # one program for both
    config.front_end.update(bins=64, bins_per_octave=12, harmonics=(1.0, 2.0))
    config.network.update(complexity=1, latent=4)
    config.evaluation.update(valid_tracks=1, test_tracks=1, window_frames=128)
    config.train.update(log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=1)
