# SPDX-License-Identifier: Apache-2.0
"""What is trained with scikit-learn alone, and logged with a line or two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy
import pandas
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from .logged import Logged, Trained, log_sklearn

NUMBERS = ["width", "height", "weight"]


def table(rows: int, seed: int = 1) -> pandas.DataFrame:
    random = numpy.random.default_rng(seed)
    return pandas.DataFrame(random.normal(size=(rows, len(NUMBERS))), columns=NUMBERS)


def customers(rows: int, seed: int = 1) -> pandas.DataFrame:
    random = numpy.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "age": random.integers(18, 90, rows),
            "plan": random.choice(["basic", "plus", "größer"], rows),
            "city": random.choice(["Köln", "東京", "Lima"], rows),
            "monthly charge": random.gamma(2.0, 20.0, rows),
        }
    )


def churn(name: str) -> Iterable[Logged]:
    """A column with a blank in its name, labels that are words."""
    x = customers(300)
    y = numpy.where((x["age"] > 50) ^ (x["plan"] == "plus"), "leaves", "stays")
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["plan", "city"]),
        (StandardScaler(), ["age", "monthly charge"]),
    )
    model = make_pipeline(columns, LogisticRegression()).fit(x, y)
    info = log_sklearn(name, model, signature=infer_signature(x, model.predict(x)))
    unknown = customers(2, 3).assign(city=["", 'a "quoted"\nline'])
    yield Logged(info, [(one, None) for one in (customers(5, 2), customers(1, 4), unknown)])


def on_numbers(estimator: Any, labels: Any) -> Trained:
    """A signature of columns."""

    def train(name: str) -> Iterable[Logged]:
        x = table(200)
        model = estimator.fit(x, labels(x))
        info = log_sklearn(name, model, signature=infer_signature(x, model.predict(x)))
        yield Logged(info, [(table(rows, 7), None) for rows in (1, 6)])

    return train


def knn(name: str) -> Iterable[Logged]:
    """A signature of one tensor."""
    x = table(200).to_numpy(numpy.float32)
    model = KNeighborsClassifier(3).fit(x, (x[:, 0] > 0) + (x[:, 1] > 0))
    info = log_sklearn(name, model, signature=infer_signature(x, model.predict(x)))
    yield Logged(info, [(table(rows, 7).to_numpy(numpy.float32), None) for rows in (1, 6)])


def missing(name: str) -> Iterable[Logged]:
    """Numbers that are not there."""
    x = table(200)
    x.loc[::7, "weight"] = numpy.nan
    model = HistGradientBoostingClassifier(max_iter=8).fit(x, numpy.where(x["width"] > 0, "a", "b"))
    info = log_sklearn(name, model, signature=infer_signature(x, model.predict(x)))
    yield Logged(info, [(x.head(9), None)])


def text(name: str) -> Iterable[Logged]:
    words = ["good", "bad", "süß", "slow", "quick", "never again", "👍"]
    random = numpy.random.default_rng(1)
    x = pandas.DataFrame({"review": [" ".join(random.choice(words, 4)) for dummy in range(120)]})
    stars = x["review"].str.count("good") - x["review"].str.count("bad")
    columns = ColumnTransformer([("review", TfidfVectorizer(), "review")])
    model = make_pipeline(columns, Ridge()).fit(x, stars)
    info = log_sklearn(name, model, signature=infer_signature(x, model.predict(x)))
    asked = pandas.DataFrame({"review": ["good and quick", "bad", "", "süß 👍"]})
    yield Logged(info, [(asked, None)])


def unsigned(name: str) -> Iterable[Logged]:
    """Nobody said what it takes."""
    x = table(100)
    yield Logged(log_sklearn(name, Ridge().fit(x, x["width"] * 3)), [(table(4, 7), None)])


MODELS: dict[str, Trained] = {
    "churn": churn,
    "svc": on_numbers(SVC(), lambda x: (x["width"] > 0).astype(int)),
    "knn": knn,
    "isolation": on_numbers(IsolationForest(n_estimators=10, random_state=1), lambda x: None),
    "missing": missing,
    "text": text,
    "unsigned": unsigned,
}
