"""The papers' networks (`networks`), the images they are trained on (`datasets`) and how they are trained
(`training`).
"""
