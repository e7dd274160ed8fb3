-- Which server gets a request.
--
-- A new one goes to the server with the fewest in flight; txn.new then tells haproxy.cfg to write down where. What asks
-- for another request (watching, cancelling) goes where that one went, and never writes. It waits for a while, where
-- nobody knows yet: it may overtake its request, or what another balancer (or the process before this one) has to tell.

local SERVERS = 16
local PATIENCE_MS, POLL_MS = 10000, 20

local function asks(txn)
    local path = txn.f:path()
    return path:find("^/v2/models/watch/")
        or path:find("^/v2/models/jobs/")
        or path:find("/ModelStreamInfer$")
        or path:find("/ModelInfer$") and txn.f:req_body():sub(6, 11) == "\n\4jobs" -- ModelInferRequest.model_name
end

-- The server that has the request `id`, by its id in haproxy.cfg; nil if nobody wrote one.
local function known(txn, id)
    local server = id ~= "" and tonumber(txn.c:table_gpt0(id, "requests")) or 0
    return server > 0 and server or nil
end

local function awaited(txn, id)
    local server, waited = known(txn, id), 0
    while id ~= "" and not server and waited < PATIENCE_MS do
        core.msleep(POLL_MS)
        server, waited = known(txn, id), waited + POLL_MS
    end
    return server
end

-- The server with the fewest requests in flight of both protocols, among equals a random one; nil if none is there.
local function least_loaded(fetch)
    local best, load = nil, math.huge
    local first = math.random(SERVERS)
    for place = first, first + SERVERS - 1 do
        local id = place % SERVERS + 1
        local name = "/s" .. id - 1
        if fetch:srv_is_up("http" .. name) == 1 then -- a number: 0 is true in Lua
            local own = fetch:srv_conn("http" .. name) + fetch:srv_conn("grpc" .. name)
            if own < load then
                best, load = id, own
            end
        end
    end
    return best
end

core.register_action("route", { "http-req" }, function(txn)
    local id = txn.f:req_hdr("dressform-route") or ""
    local asking = asks(txn)
    local server = asking and awaited(txn, id) or known(txn, id)
    if server then
        txn:set_var("txn.follows", true)
    else
        server = least_loaded(txn.f)
        txn:set_var("txn.new", server ~= nil and id ~= "" and not asking)
    end
    if server then
        txn:set_var("txn.server", server)
    end
end, 0)
