"""What can be done with all the images of a collection: each job is a module, and a line here.

A job is a function whose first argument is a `View`. It reads rows as arrays and calls a task.
"""

from nearsight.analyses.classification import classifier, classify, fit_classifier, suggest_labels
from nearsight.analyses.clusters import cluster, predict_clusters
from nearsight.analyses.customer_segments import assign_customers, segment_customers
from nearsight.analyses.duplicates import find_duplicates
from nearsight.analyses.map import layout_2d
from nearsight.analyses.outliers import outliers
from nearsight.analyses.pca import reduce_dim
from nearsight.analyses.recommendations import catalog, load_catalog, recommend
from nearsight.analyses.saved_clusters import save_clusters
from nearsight.collection.facts import info


class Jobs:
    """The jobs, as methods of `Collection`."""

    predict_clusters = predict_clusters
    cluster = cluster
    save_clusters = save_clusters
    segment_customers = segment_customers
    assign_customers = assign_customers
    outliers = outliers
    find_duplicates = find_duplicates
    info = info
    layout_2d = layout_2d
    reduce_dim = reduce_dim
    catalog = catalog
    load_catalog = load_catalog
    recommend = recommend
    classifier = classifier
    classify = classify
    fit_classifier = fit_classifier
    suggest_labels = suggest_labels
