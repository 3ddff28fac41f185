"""The taxi functions in Python, and what its standard library is good at: statistics and calendars."""

import statistics
from datetime import datetime, timedelta, timezone

import wit_world
from componentize_py_types import Err
from wit_world import Datetime, Row, Summary

# at the top, not in the functions: what is imported here is in the component, what is imported later is not
YEAR_ONE = datetime(1, 1, 1)


class WitWorld(wit_world.WitWorld):
    def create_array(self, vendorid: str, weekday: str, pickuphour: str, passenger: str, distance: str) -> tuple[str, str, str, str, str]:
        return vendorid, weekday, pickuphour, passenger, distance

    def create_row(self, vendorid: int, weekday: str, pickuphour: int, passenger: int, distance: float) -> Row:
        return Row(vendorid, weekday, pickuphour, passenger, distance)

    def summarize(self, values: list[float]) -> Summary:
        """Raises what SQL sees as the row's error: a failed row, not a trap."""
        try:
            mean, median = statistics.fmean(values), statistics.median(values)
        except statistics.StatisticsError as error:
            raise Err(str(error))
        return Summary(mean, median, statistics.stdev(values) if len(values) > 1 else None)

    def is_working_hour(self, at: Datetime, hours: int) -> bool:
        utc = YEAR_ONE + timedelta(microseconds=at.ticks_since_year_one // 10)
        local = utc.replace(tzinfo=timezone.utc).astimezone(timezone(timedelta(hours=hours)))
        return local.weekday() < 5 and 8 <= local.hour < 18
