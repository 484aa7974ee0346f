"""MAJL: joint separation and pitch in two stages (arXiv 2501.03689).

    python -m majl_jax.prepare --dataset=chorales,chorales_stems,chorales_pitch \\
        --tracks=train=30,valid=2,test=8
    python -m majl_jax.main --config=configs/majl.py:quickstart --workdir=runs/majl

`:quickstart` minutes on two cores; `:experiment` the tables of experiments/majl; `:voice` the model
of that name, 80 minutes of a core; `:smoke` seconds, for tests; `:paper` the networks at their
published sizes with the authors' hyper-parameters as far as they are known (those of DJCM, their
earlier code; MAJL's own are not public).
"""

from ml_collections import ConfigDict

from majl_jax.models.band_split import PRESETS as PRESETS_OF_LOCOFORMER

PRESETS = ("quickstart", "smoke", "experiment", "voice", "paper")


def get_config(preset: str = "quickstart") -> ConfigDict:
    """The config of a preset; any field can be set on the command line, as
    --config.stages.student.steps=7.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"configs/majl.py has no preset {preset!r}; expected one of {', '.join(PRESETS)}"
        )
    config = _paper()
    if preset == "quickstart":
        _quickstart(config)
    elif preset == "experiment":
        _quickstart(config)
        _experiment(config)
    elif preset == "voice":
        _voice(config)
    elif preset == "smoke":
        _quickstart(config)
        _smoke(config)
    return config


def _paper() -> ConfigDict:
    config = ConfigDict()
    config.recipe = "majl"
    config.seed = 0

    # Which stages run, in this order. The student has to follow its teacher; `pipeline` (both
    # networks trained apart) and `naive_joint` (the cascade, one stage) are baselines that stand
    # alone.
    config.run = ("pipeline", "teacher", "student")
    config.stages = ConfigDict()
    for name in ("pipeline", "naive_joint", "teacher", "student"):
        # 250 epochs of 2,893 segments of MIR-1K's training clips in batches of 16.
        config.stages[name] = ConfigDict({"steps": 45_000, "batch_size": 16, "learning_rate": 5e-4})
        # Where its parameters come from, if not from the seed: a run, RUN:STAGE, a model file or
        # weights, for all or a PART=, as "pitch=crepe-tiny". docs/runs.md has the list.
        config.stages[name].start = ""

    config.data = ConfigDict()
    config.data.directory = "data/prepared"  # where majl_jax.prepare put the data sets
    config.data.labelled = "chorales"  # stems and pitch: what MIR-1K is to the paper
    config.data.stems_only = "chorales_stems"  # stems, no pitch: MUSDB18; "" leaves it out
    config.data.pitch_only = "chorales_pitch"  # mixture and pitch: MIR_ST500; "" leaves it out
    # Mixtures alone, of which the teacher labels both; "" leaves it out. Not in the paper.
    config.data.unlabelled = ""
    # Music without the target, as instrumental pieces where that is a voice: all stages learn
    # silence from it, and augmentation puts voices into it. "" leaves it out. Not in the paper.
    config.data.without_target = ""
    config.data.without_target_share = 0.3  # of the examples of each stage
    config.data.labelled_share = 1 / 3  # of the student's examples, the rest is pseudo-labelled
    # The stem to separate and to hear; several names where data sets call it differently, as
    # "voice,vocals".
    config.data.target = "soprano"
    config.data.sample_rate_hz = 16_000
    config.data.hop_samples = 320  # 20 ms: label frames, STFT frames and pitch frames are one grid
    config.data.segment_samples = 40_960  # 2.56 s, 128 frames
    # The mixture is this times the sum of the stems. 0.5 with two stems is the authors' (L + R) /
    # 2, which leaves the target 6 dB above its share in the mixture, out of reach of a mask.
    config.data.mixture_gain = 1.0
    config.data.reader = "tf.data"  # "memory": from array_record shards, without TensorFlow

    # The two modules, by the name of their group of fields below; any separator works with any
    # pitch estimator.
    config.separator = "unet"  # unet, resunet, light, chimera, locoformer, vqvae
    config.pitch = "crepe"  # crepe, harmof0

    config.unet = ConfigDict()
    config.unet.channels = (16, 32, 64, 128, 256, 512)  # Jansson et al. 2017
    # 4 and an epsilon of 2e-5: the port whose weights majl_jax.weights reads
    config.unet.kernel_size = 5
    config.unet.norm_epsilon = 1e-5
    config.unet.window_samples = 1024
    config.unet.dropout = 0.5
    config.unet.norm_momentum = 0.99
    config.unet.dtype = "float32"  # of the convolutions; "bfloat16" on accelerators

    config.resunet = ConfigDict()  # ResUNetDecouple+ (Kong et al. 2021), 102,570,824 parameters
    config.resunet.channels = (32, 64, 128, 256, 384, 384)
    config.resunet.blocks = 4  # per stage
    config.resunet.centre_stages = 4
    config.resunet.window_samples = 2048
    config.resunet.norm_momentum = 0.99
    config.resunet.dtype = "float32"
    config.resunet.remat = False  # True: recompute activations backwards, less memory, more time

    config.light = ConfigDict()  # the light decoupling separator of DJCM, 20,820,708 parameters
    config.light.channels = (32, 64, 128, 256, 384, 384)
    config.light.blocks = 1
    config.light.centre_stages = 1
    config.light.window_samples = 2048
    config.light.norm_momentum = 0.99
    config.light.dtype = "float32"
    config.light.remat = False

    # Separators of the other papers: models/waveform_separators.py. A stage may start from what
    # theirs learnt, as "separator/blstm=RUN:pretrain".
    config.chimera = ConfigDict()  # transfer's, of one source
    config.chimera.units = 500
    config.chimera.layers = 4
    config.chimera.dropout = 0.3
    config.chimera.norm = "batch"  # instance
    config.chimera.window_samples = 1024
    config.chimera.dtype = "float32"

    config.locoformer = ConfigDict(PRESETS_OF_LOCOFORMER["medium"])  # mixit's
    # Above 1: the target is a sum of so many, with learnt shares; as many as what a stage starts
    # from has ("separator=RUN:pretrain" of mixit).
    config.locoformer.outputs = 1
    config.locoformer.bands = (4,) * 16 + (8,) * 16 + (16,) * 12 + (64, 65)  # widths in bins
    config.locoformer.kernel_size = 8
    config.locoformer.order = "ft"
    config.locoformer.pos_enc = "nope"
    config.locoformer.decoder_tanh = "after_second"
    config.locoformer.dropout = 0.1
    config.locoformer.attention_dropout = 0.0
    config.locoformer.attention = "auto"
    config.locoformer.window_samples = 1024
    config.locoformer.remat = "full"
    config.locoformer.dtype = "float32"

    config.vqvae = ConfigDict()  # jukebox's, level 0, without the codebook
    config.vqvae.width = 32
    config.vqvae.depth = 4
    config.vqvae.multiplier = 2
    config.vqvae.downs = (3,)
    config.vqvae.strides = (2,)
    config.vqvae.latent = 64
    config.vqvae.dilation_growth = 3
    config.vqvae.remat = "none"
    config.vqvae.dtype = "float32"

    config.crepe = ConfigDict()
    config.crepe.capacity = "full"  # tiny, small, medium, large, full
    config.crepe.multiplier = 0  # above 0: that many times 32, 4, 4, 4, 8, 16 filters instead
    config.crepe.dropout = 0.25
    # Of a frame's standard deviation; the published weights use 1e-8
    config.crepe.frame_floor = 1e-4
    config.crepe.norm_momentum = 0.99
    config.crepe.dtype = "float32"

    config.harmof0 = ConfigDict()  # Wei et al. 2022, 372,865 parameters
    config.harmof0.channels = (32, 64, 128, 128)
    config.harmof0.norm_momentum = 0.9
    config.harmof0.swapped_interpolation = False  # True: as the released code, for its weights
    config.harmof0.floor_per_batch = False  # True: likewise
    config.harmof0.dtype = "float32"

    config.stop_gradient_between = False  # True: the pitch loss does not reach the separator
    # How far the pitch loss reaches into the separator: losses/interface.py. Step metrics
    # interface_* tell both gradients' norms.
    config.balance = ConfigDict()
    config.balance.method = "none"  # DJCM's plain sum; ratio, gradient_norm, uncertainty
    # The pitch gradient's norm as a share of the separation gradient's ("gradient_norm"), or its
    # factor ("ratio").
    config.balance.pitch_share = 0.3
    config.losses = ConfigDict()
    config.losses.separation = "l1_wav"  # l1_mag, neg_sdr, neg_si_sdr
    config.losses.positive_weight = 10.0  # of the labelled bin against the others (alpha)
    config.losses.target_width_cents = 0.0  # 0: one-hot (DJCM); 25: Gaussian (CREPE)
    config.losses.pitch_frames = 128  # frames whose pitch loss is taken; fewer are drawn at random
    config.weights = ConfigDict()
    config.weights.separation = 1.0  # DJCM: w and 2 - w, swept
    config.weights.pitch = 1.0
    config.weights.pitch_on_target = 0.0  # the pitch loss of PE on the true source as well
    config.weights.weighting = 1.0  # of the weight module's own loss, see dwhs.objective

    # Dynamic weights on hard samples, in teacher and student. Four cases, by whether the pitch is
    # right in the estimated and in the true source: losses/hard_samples.py.
    config.dwhs = ConfigDict()
    config.dwhs.objective = "robust"  # exact, self_paced (the opposite), fixed, none
    # Per case 1-4, (separation, pitch): 1 raises that loss by the weight, -1 lowers it, 0 leaves
    # it. Attested is (1, 0) in case 3.
    config.dwhs.exponents = ((0, 0), (0, 1), (1, 0), (0, 1))
    config.dwhs.largest_increase = 1.0  # weights lie between 1 and 1 + this
    config.dwhs.middle_weight = 1.5  # of a raised sample of average difficulty
    config.dwhs.temperature = 1.0  # the lower, the further weights spread around it
    # What has a case and a pitch weight: a segment, or a "frame" (separation then by the shares of
    # a segment's frames).
    config.dwhs.grain = "segment"
    config.dwhs.features = (128, 64)  # of the weight module's hidden layers
    config.dwhs.right_share = 0.5  # a segment is right if so many of its voiced frames are
    config.dwhs.tolerance_cents = 50.0
    config.dwhs.voicing = 0.5  # salience from which a frame is voiced

    # Of every segment, on the device: audio/voice_remixing.py. DJCM has none.
    config.augmentation = ConfigDict()
    config.augmentation.others = 0.0  # probability of another segment's accompaniment
    config.augmentation.match_levels = False  # that one is brought to the level of its own
    config.augmentation.gain_db = 0.0  # voice and accompaniment: ± this, each
    config.augmentation.shifted = 0.0  # probability of another key, for both
    config.augmentation.semitones = 3.0  # ± this

    config.pseudo_labels = ConfigDict()
    config.pseudo_labels.threshold = 0.7  # the paper's best
    config.pseudo_labels.granularity = "frame"  # pitch is kept or not by frame, "segment" or "song"
    config.pseudo_labels.tolerance_cents = 50.0  # how far from a label the teacher may hear it
    # Share of them made wrong on purpose, to see what happens
    config.pseudo_labels.wrong_pitch = 0.0

    config.optimizer = ConfigDict()
    config.optimizer.clip_norm = 3.0  # of the gradients' global norm; 0: no clipping
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
    config.evaluation.references = True  # the pitch heard in the mixture and the true stem as well
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
    config.unet.update(channels=(8, 16, 32, 64, 128, 256), dropout=0.0, norm_momentum=0.9)
    config.resunet.update(channels=(4, 8, 8, 16, 16, 16), blocks=1, centre_stages=1)
    config.resunet.window_samples = 1024
    config.light.update(channels=(4, 8, 8, 16, 16, 16), window_samples=1024)
    config.chimera.update(units=64, layers=2, dropout=0.0)
    config.locoformer.update(layers=2, features=24, attention_features=24, heads=2, norm_groups=2)
    config.locoformer.update(hidden=32, kernel_size=4, dropout=0.0, remat="none")
    config.vqvae.update(width=24, latent=24)
    config.crepe.update(multiplier=1, dropout=0.0, norm_momentum=0.9)
    config.harmof0.update(channels=(8, 12, 16, 16))
    config.resunet.norm_momentum = config.light.norm_momentum = 0.9
    config.losses.update(target_width_cents=25.0, pitch_frames=32)
    # Chosen on validation: experiments/majl/README.md. PE hears the true source as well.
    config.balance.update(method="gradient_norm", pitch_share=0.1)
    config.weights.pitch_on_target = 1.0
    config.optimizer.update(schedule="cosine", warmup_steps=20)
    config.evaluation.update(valid_tracks=2, test_tracks=8, examples=2)
    config.evaluation.update(overlap=0.25, select_best=False, bss_eval=False)
    config.train.update(log_every_steps=50, evaluate_every_steps=150, checkpoint_every_steps=150)


def _experiment(config: ConfigDict) -> None:
    """The tables of experiments/majl: every stage trains the same number of steps, until scores on
    validation rise no more; three to six minutes each on one core.
    """
    for stage in config.stages.values():
        stage.update(steps=900)
    config.data.segment_samples = 20_480  # half as much audio a step, for twice the steps
    config.losses.pitch_frames = 16
    config.unet.channels = (4, 8, 16, 32, 64, 128)
    for separator in (config.resunet, config.light):  # these work at full resolution, so narrower
        separator.update(channels=(2, 4, 8, 8, 16), window_samples=768)
    config.harmof0.channels = (4, 8, 8, 8)
    config.evaluation.update(valid_tracks=0, test_tracks=16, examples=0, references=False)
    config.train.update(log_every_steps=50, evaluate_every_steps=300, checkpoint_every_steps=300)


def _voice(config: ConfigDict) -> None:
    """Real singing: the shipped model, docs/voice.md."""
    for stage in config.stages.values():
        stage.update(steps=4000, batch_size=8, learning_rate=1e-3)
        stage.start = "pitch=crepe-tiny"
    config.run = ("teacher",)
    config.data.update(labelled="mir1k", stems_only="", pitch_only="")
    config.data.target = "voice,vocals"
    config.unet.update(channels=(8, 16, 32, 64, 128, 256), dropout=0.0)
    config.crepe.update(capacity="tiny", dropout=0.1)
    # Blurred targets without extra weight are what the published listener learned by: its
    # confidence tells voiced frames from unvoiced ones.
    config.losses.update(target_width_cents=25.0, positive_weight=1.0, pitch_frames=32)
    config.balance.update(method="gradient_norm", pitch_share=0.1)
    config.weights.pitch_on_target = 1.0
    config.augmentation.update(others=0.5, gain_db=4.0, shifted=0.3)
    config.optimizer.update(schedule="cosine", warmup_steps=100)
    config.evaluation.update(overlap=0.25, bss_eval=False)
    config.train.update(evaluate_every_steps=1000, checkpoint_every_steps=250)


def _smoke(config: ConfigDict) -> None:
    """A few steps of the smallest networks: does every part run?"""
    for stage in config.stages.values():
        stage.update(steps=2, batch_size=4)
    for separator in (config.unet, config.resunet, config.light):
        separator.channels = (2, 2, 2, 2, 2, 2)
    config.chimera.update(units=4, layers=1)
    config.locoformer.update(layers=1, features=4, attention_features=4, heads=1, norm_groups=1)
    config.locoformer.update(hidden=4, kernel_size=2, bands=(64,) * 7 + (65,))
    config.vqvae.update(width=4, depth=2, multiplier=1, latent=4)
    config.harmof0.channels = (2, 2, 2, 2)
    config.losses.pitch_frames = 4
    config.evaluation.update(valid_tracks=1, test_tracks=1, examples=1)
    config.train.update(log_every_steps=1, evaluate_every_steps=2, checkpoint_every_steps=1)
