"""The one exception that tells a user what was wrong with their input."""


class TiltmeterError(Exception):
    """Wrong input, said in one sentence: what was got, what was expected, what to do.

    The command line prints the sentence and exits with status 2; it never shows a traceback for this error.
    """
