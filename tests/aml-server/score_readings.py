"""A detector of odd readings: one object per row with a prediction and a score, as a bare list.

Input: records of deviceId, temperature, humidity.
"""
import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

INPUT = pd.DataFrame([["a", 21.5, 40.0]], columns=["deviceId", "temperature", "humidity"])


def init():
    pass


@input_schema("data", PandasParameterType(INPUT))
@output_schema(StandardPythonParameterType([{"prediction": False, "score": 0.1}]))
def run(data):
    scores = ((data["temperature"] - 21).abs() / 10 + (data["humidity"] - 40).abs() / 100).round(3)
    return [{"prediction": score > 1, "score": score} for score in scores.tolist()]
