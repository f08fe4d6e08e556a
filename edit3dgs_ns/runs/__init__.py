"""Trained runs on disk: opening them, their history, derived runs, import and export of avatars."""
