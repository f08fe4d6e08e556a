"""How well a video of one person becomes a capture and an avatar: on synthetic people, whose truth is known, and on clips."""
