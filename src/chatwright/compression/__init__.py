"""A model in another form: written as GGUF or as an HF folder (`export_gguf`, `export_hf`), and the proof that nothing was lost
on the way (`verify`).
"""
