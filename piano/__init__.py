"""What a recording, a piano and a user add to the four things of utils.py."""
