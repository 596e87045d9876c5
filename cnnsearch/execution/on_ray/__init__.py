"""Runs trials in Ray's workers. The only package that imports Ray; Ray's settings must be made before that import."""

import os

# No output of Ray's and Tune's own, no handlers of signals, nothing sent anywhere.
os.environ.update(
    {
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    }
)
