-- Which server gets a request: the one that knows the request it is about, else the one with the fewest in flight.
--
-- The action `route` sets txn.server ("s" and a number), and txn.follows where the request was known. HAProxy's own
-- stick tables learn where a request went only with its answer, which comes with the picture: too late to watch it.

local SERVERS = 16
local KEPT_SECONDS = 1800 -- at least: above the longest job
local LONGEST_ID = 200
local KEPT_IDS = 100000   -- at most, in each of the two generations

local new, old, count, since = {}, {}, 0, core.now().sec

local function known(id)
    return new[id] or old[id]
end

local function remember(id, number)
    local now = core.now().sec
    if now - since > KEPT_SECONDS or count >= KEPT_IDS then
        new, old, count, since = {}, new, 0, now
    end
    new[id], count = number, count + 1
end

-- The server with the fewest requests in flight of both protocols, among equals a random one; nil if none is there.
local function least_loaded(fetch)
    local best, load = nil, math.huge
    local first = math.random(SERVERS)
    for place = first, first + SERVERS - 1 do
        local number = place % SERVERS
        local name = "/s" .. number
        if fetch:srv_is_up("http" .. name) == 1 then -- a number: 0 is true in Lua
            local own = fetch:srv_conn("http" .. name) + fetch:srv_conn("grpc" .. name)
            if own < load then
                best, load = number, own
            end
        end
    end
    return best
end

core.register_action("route", { "http-req" }, function(txn)
    local id = txn.sf:req_hdr("dressform-route")
    if #id > LONGEST_ID then
        id = "" -- no server takes it
    end
    local number = id ~= "" and known(id)
    if number then
        txn:set_var("txn.follows", true)
    else
        number = least_loaded(txn.f)
        if number and id ~= "" then
            remember(id, number)
        end
    end
    if number then
        txn:set_var("txn.server", "s" .. number)
    end
end, 0)
