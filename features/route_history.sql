/* featreg
feature_view: route_history
entity: route
freshness: realtime
owner: network-planning
description: How this route has been running: landings, lateness and time in the air.
*/
SELECT
  origin,
  dest,
  count(*) OVER w7d AS route_landings_7d,
  avg(arr_delay) OVER w7d AS route_arr_delay_7d,
  avg(arr_delay) OVER w28d AS route_arr_delay_28d,
  stddev_samp(arr_delay) OVER w28d AS route_arr_spread_28d,
  avg(air_time) OVER w28d AS route_air_time_28d,
  count(*) FILTER (WHERE arr_delay > 15) OVER w7d AS route_late_7d,
  last_value(arr_delay) OVER (PARTITION BY origin, dest ORDER BY arrived_at) AS route_last_arr_delay,
  route_late_7d / route_landings_7d AS route_late_share_7d
FROM arrivals
WINDOW
  w7d AS (PARTITION BY origin, dest ORDER BY arrived_at RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW),
  w28d AS (PARTITION BY origin, dest ORDER BY arrived_at RANGE BETWEEN INTERVAL 28 DAYS PRECEDING AND CURRENT ROW)
