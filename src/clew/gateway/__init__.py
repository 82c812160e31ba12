"""The hot loop: one exchange after the other."""
