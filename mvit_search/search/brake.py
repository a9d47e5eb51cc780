"""Whether a run should come to its end: because of Ctrl-C, or because its time is up."""

import time
from collections.abc import Callable


class Brake:
    """Looked at between steps by the driver, and after every epoch by trainings in this process.

    Attributes:
        interrupted: somebody pressed Ctrl-C; set by whoever handles the signal.
        deadline: on the clock, when the whole run ends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.interrupted = False
        self.deadline = float("inf")
        self.clock = clock

    def interrupt(self) -> None:
        """Ask for an end that loses nothing."""
        self.interrupted = True

    def pressed(self) -> bool:
        """Whether nothing more should be begun, and what runs should be saved and left."""
        return self.interrupted or self.clock() >= self.deadline

    def sleep(self, seconds: float) -> None:
        """Wait for something else.

        Raises:
            KeyboardInterrupt: the run was interrupted meanwhile.
        """
        until = self.clock() + seconds
        while (left := until - self.clock()) > 0:
            if self.interrupted:
                raise KeyboardInterrupt
            time.sleep(min(left, 0.2))
