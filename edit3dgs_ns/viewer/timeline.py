"""The viewer's clock: which frame of a motion is shown, paused or playing. Knows nothing of a viewer."""

from __future__ import annotations

from dataclasses import dataclass

FRAMES_PER_SECOND = 25.0
"""What captures are usually recorded with; files of motions do not say."""


def time_of(frame: int, frames: int) -> float:
    """Returns the normalised time of a frame of a motion, t in [0, 1]: index / (frames - 1)."""
    return 0.0 if frames < 2 else min(max(frame, 0), frames - 1) / (frames - 1)


@dataclass
class Timeline:
    """Frames 0 ... frames-1 of a motion, again and again while playing. Times `now` are seconds of any clock."""

    frames: int
    fps: float = FRAMES_PER_SECOND
    """Frames per second at speed 1."""
    speed: float = 1.0
    _frame: int = 0
    _since: float | None = None
    """While playing: when it began to play from `_frame`."""

    @property
    def playing(self) -> bool:
        """Not paused."""
        return self._since is not None

    def frame_at(self, now: float) -> int:
        """The frame that is shown."""
        if self._since is None:
            return self._frame
        played = int((now - self._since) * self.fps * self.speed)
        return (self._frame + max(played, 0)) % max(self.frames, 1)

    def time_at(self, now: float) -> float:
        """The normalised time that is shown, in [0, 1]."""
        return time_of(self.frame_at(now), self.frames)

    def seek(self, frame: int, now: float) -> None:
        """Show a frame; goes on playing from there if it plays."""
        self._frame = min(max(frame, 0), max(self.frames - 1, 0))
        self._since = now if self.playing else None

    def play(self, now: float) -> None:
        """Play from the frame that is shown."""
        self._frame, self._since = self.frame_at(now), now

    def pause(self, now: float) -> None:
        """Stay at the frame that is shown."""
        self._frame, self._since = self.frame_at(now), None

    def set_speed(self, speed: float, now: float) -> None:
        """Play faster (above 1) or slower from the frame that is shown."""
        self.seek(self.frame_at(now), now)
        self.speed = speed

    def set_frames(self, frames: int, now: float, fps: float = FRAMES_PER_SECOND) -> None:
        """Another motion: from its beginning, at its own rate."""
        self.frames, self.fps = frames, fps
        self.seek(0, now)
