"""The dashboard as an operator has it: Debian's chromium, a real gateway, real stores, traffic that does not stop."""
