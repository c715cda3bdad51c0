"""Side-by-side measurements of tinyserve and llama.cpp; bench/compare.py is the program."""
