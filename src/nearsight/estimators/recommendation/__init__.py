"""Recommendations from visual similarity and from baskets, also for items without baskets."""

from nearsight.estimators.recommendation.diversity import diversify
from nearsight.estimators.recommendation.explanations import Reason
from nearsight.estimators.recommendation.recommender import Recommendation, Recommender

__all__ = ["Reason", "Recommendation", "Recommender", "diversify"]
