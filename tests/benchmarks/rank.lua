-- Rank requests for wrk: each is of another user of the store, with the next list of candidates.
-- Arguments: a file with the end of a body on each line, how many users there are, and the mean of the milliseconds
-- that a connection waits before each request (0: it does not wait).

local users, tails, heads, at

function init(arguments)
   users, at, tails, heads = tonumber(arguments[2]), 0, {}, {}
   local mean = tonumber(arguments[3])
   for tail in io.lines(arguments[1]) do
      tails[#tails + 1] = tail
      heads[#heads + 1] = string.format(
         'POST /v1/rank HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{"user_id":"visitor-',
         wrk.headers["Host"], #'{"user_id":"visitor-0000000",' + #tail)
   end
   math.randomseed(1)
   if mean > 0 then
      -- Exponential, as independent visitors come; wrk waits whole milliseconds.
      function delay()
         return math.floor(-mean * math.log(1 - math.random()) + math.random())
      end
   end
end

function request()
   at = at % #tails + 1
   return heads[at] .. string.format('%07d",', math.random(0, users - 1)) .. tails[at]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%f,"mean":%f,"p50":%f,"p99":%f,"most":%f,"errors":%d}\n',
      summary.requests, summary.duration / 1e6, latency.mean / 1e3, latency:percentile(50) / 1e3,
      latency:percentile(99) / 1e3, latency.max / 1e3,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
