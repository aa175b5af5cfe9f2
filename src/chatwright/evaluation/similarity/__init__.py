"""Whether vectors of sentences say what people would say: rank correlation with how alike two sentences are, English and Chinese.

The sixty pairs were written for this project, each in both languages, and graded from 0 (different topics) to 5 (the same)
after the scale of SemEval's STS (Agirre et al. 2012). They are few: an interval comes with every figure.
"""

from chatwright.evaluation.similarity.measure import Similarity, measure_similarity, spearman
from chatwright.evaluation.similarity.pairs import SentencePair, sentence_pairs

__all__ = ["SentencePair", "Similarity", "measure_similarity", "sentence_pairs", "spearman"]
