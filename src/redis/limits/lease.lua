-- Leases tokens and places of one tenant to one replica: all that is needed, or none of it.
--
-- KEYS  one per bucket, then one per kind of place
-- ARGV  buckets, kinds, replica, number of this lease, time to live of places in ms;
--       per bucket: per_second, burst, owed, want, ahead, 1 where more than is there may be taken;
--       per kind: limit, used, more, spare
-- Returns whether it was granted; per bucket what is owed now (micro-tokens) and how many tokens were granted; per kind
-- how many places the replica has now, and how many all replicas have.
--
-- A bucket is "debt at burst": micro-tokens owed, at that microsecond, of a bucket of that size. No key is a full one.
-- Places are a hash: replica -> "places:number". src/redis/limits/twin.rs is the same in Rust.
local TOKEN, MOST = 1000000, 8000000000000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local buckets, kinds = tonumber(ARGV[1]), tonumber(ARGV[2])
local replica, number, ttl = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local granted, scarce = true, math.huge
local at = 5

local function take_args(count)
    local taken = {}
    for i = 1, count do
        taken[i] = tonumber(ARGV[at + i])
    end
    at = at + count
    return unpack(taken)
end

local draws = {}
for i = 1, buckets do
    local rate, burst, owed, want, ahead, soft = take_args(6)
    local debt, changed = 0, false
    local kept = redis.call('GET', KEYS[i])
    if kept then
        local before, since, size = string.match(kept, '^(%d+) (%d+) (%d+)$')
        since = tonumber(since)
        debt = math.max(0, before - math.max(0, now - since) * rate)
        if burst < tonumber(size) and debt > burst * TOKEN then
            debt = burst * TOKEN
            changed = true
        end
        changed = changed or since > now
    end
    debt = math.min(MOST, debt + owed * TOKEN)
    local free = math.floor((burst * TOKEN - debt) / TOKEN)
    if want > 0 then
        granted = granted and free >= 1
        if soft == 0 then
            scarce = math.min(scarce, free)
        end
    end
    draws[i] = {
        rate = rate, burst = burst, want = want, ahead = ahead, soft = soft == 1,
        debt = debt, changed = changed or owed > 0,
    }
end

local holds = {}
for i = 1, kinds do
    local limit, used, more, spare = take_args(4)
    local others, stale = 0, false
    local fields = redis.call('HGETALL', KEYS[buckets + i])
    for f = 1, #fields, 2 do
        local places, last = string.match(fields[f + 1], '^(%d+):(%d+)$')
        if fields[f] == replica then
            stale = tonumber(last) >= number
        else
            others = others + tonumber(places)
        end
    end
    if more > 0 then
        local free = limit - others - used
        granted = granted and free >= 1 and not stale
        scarce = math.min(scarce, free)
    end
    holds[i] = { limit = limit, used = used, more = more, spare = spare, others = others, stale = stale }
end

local reply = { granted and 1 or 0 }
for i, draw in ipairs(draws) do
    local grant = 0
    if granted then
        if draw.want > 0 then
            grant = draw.soft and draw.want or math.min(draw.want, scarce)
        end
        if draw.ahead > 0 and draw.debt + (grant + draw.ahead) * TOKEN <= draw.burst * TOKEN / 2 then
            grant = grant + draw.ahead
        end
    end
    draw.debt = math.min(MOST, draw.debt + grant * TOKEN)
    if grant > 0 or draw.changed then
        if draw.debt > 0 then
            local value = string.format('%.0f %.0f %.0f', draw.debt, now, draw.burst)
            local drained = math.ceil(draw.debt / draw.rate / 1000) + 1000
            redis.call('SET', KEYS[i], value, 'PX', string.format('%.0f', drained))
        else
            redis.call('DEL', KEYS[i])
        end
    end
    reply[#reply + 1] = draw.debt
    reply[#reply + 1] = grant
end
for i, hold in ipairs(holds) do
    local places = hold.used
    if granted then
        places = places + math.min(hold.more, scarce)
    end
    if hold.spare > 0 and (hold.others + places + hold.spare) * 2 <= hold.limit then
        places = places + hold.spare
    end
    if not hold.stale then
        -- A replica without places stays for a moment, so that no older lease that was under way brings them back.
        local key = KEYS[buckets + i]
        redis.call('HSET', key, replica, string.format('%.0f:%.0f', places, number))
        redis.call('PEXPIRE', key, hold.others + places > 0 and ttl or 10000)
    end
    reply[#reply + 1] = places
    reply[#reply + 1] = hold.others + places
end
return reply
