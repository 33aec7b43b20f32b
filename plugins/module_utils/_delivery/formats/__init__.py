# SPDX-License-Identifier: Apache-2.0
"""Model files, read without the frameworks that wrote them. Nothing of them is run or unpickled.

- ``model_file``: one file as a model: its kind by name and content, and what is refused.
- ``mlmodel``: MLmodel of a published version: signature, input example.
- ``onnx``: inputs, outputs and external data of an ONNX file.
- ``trees``: features and classes of XGBoost, LightGBM and treelite files.
- ``xgboost_document``: the trees of an XGBoost file that its class answers with.
- ``lightgbm_text``: what a server would compute otherwise than LightGBM.
- ``thresholds``: thresholds that Triton's input does not tell apart.
- ``ubjson``: the binary JSON of XGBoost.
- ``given_file``: a file that somebody else has opened.
- ``sklearn_archive``: pickles and skops archives of scikit-learn as inert values.
- ``sklearn_class``: of which class such a file's object is, from a few bytes of it.
- ``pickle_program``: what a pickle makes, without any class.
- ``pickled_arrays``: numpy's types and arrays there, of which numpy sees what fits alone.
- ``npy_file``: numpy's own files.
- ``boosters``: XGBoost's and LightGBM's models in pickles and skops archives.
- ``sklearn_to_treelite``: trees and forests of scikit-learn as a treelite checkpoint.
- ``served``: what a server reads of a file of MLflow's own flavors.
- ``tensorrt``: what a TensorRT plan was built for, and what the servers have.
- ``default_config``: a config.pbtxt for a model that came without one.
"""
