"""`udf.{{camel}}(value, low, high)`: where a value lies between two bounds, 0 to 1."""

import wit_world
from componentize_py_types import Err

# import what the functions need here, at the top: what is imported inside a function is not in the component


class WitWorld(wit_world.WitWorld):
    def {{snake}}(self, value: float, low: float, high: float) -> float:
        """Raises what SQL sees as the row's error."""
        if not low < high:
            raise Err("low must be below high")
        return min(max((value - low) / (high - low), 0.0), 1.0)
