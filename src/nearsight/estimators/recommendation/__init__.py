"""What goes with what: lookalikes, what is bought together, and both for what nobody has bought yet."""

from nearsight.estimators.recommendation.diversity import diversify
from nearsight.estimators.recommendation.explanations import Reason
from nearsight.estimators.recommendation.recommender import Recommendation, Recommender

__all__ = ["Reason", "Recommendation", "Recommender", "diversify"]
