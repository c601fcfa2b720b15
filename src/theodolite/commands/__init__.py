"""What the commands do: one file a command. `arguments` is light; the others are imported once a command
was chosen.
"""
