"""The exception for wrong input."""


class TiltmeterError(Exception):
    """Wrong input, explained in one sentence: what was given, what was expected, what to do.

    The command line prints the sentence and exits with status 2, without a traceback.
    """
