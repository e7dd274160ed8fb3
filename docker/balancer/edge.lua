-- Lets gRPC messages pass for the public models alone, and none that is too large.
--
-- The path of a gRPC call names a method; the model is in the message: field 1 of ModelInferRequest, ModelReadyRequest
-- and ModelMetadataRequest. So that no key holder calls a leaf model, the messages are read as they stream by. Protocol
-- buffers take the last of several values of a field, so every field 1 is looked at, and what a reader could understand
-- in two ways (long tags, groups, compressed messages) is refused. Nothing of a message's last bytes is passed on before
-- they are judged, and a server starts nothing before it has the whole message.

local PUBLIC = {inpaint = true, tryon = true, mask = true, jobs = true, watch = true}
local STREAMED = {watch = true} -- what paints is counted call by call
local LARGEST = tonumber(os.getenv("EDGE_BODY"))
local QUESTION = 4096 -- bytes of a message that brings no picture
local MORE = "the next piece"

-- gRPC's status and sentence of each reason in txn.refusal.
local REFUSALS = {
    key = {16, "a known API key is needed: authorization: Bearer KEY"},
    offer = {7, "not offered here: the edge passes inference, watching, health and metadata of the public models alone"},
    compressed = {12, "compressed requests are not taken here: pictures are compressed already"},
    large = {8, "the request is larger than this edge takes"},
    rate = {8, "DRESSFORM_OVERLOADED retry_after_ms=2000: this API key's calls of a minute are spent"},
}

-- A coroutine that is resumed with each piece of the body of the call `about`. It ends by an error, where something must
-- not pass. The first name that it reads becomes about.model, and no other may follow: what was counted is what is asked.
local function reader(about)
    local piece, at = "", 1

    local function byte()
        while at > #piece do
            piece, at = coroutine.yield(MORE), 1
        end
        at = at + 1
        return piece:byte(at - 1)
    end

    local function skip(count)
        while count > #piece - at + 1 do
            count = count - (#piece - at + 1)
            piece, at = coroutine.yield(MORE), 1
        end
        at = at + count
    end

    local function text(length)
        local letters = {}
        for i = 1, length do
            letters[i] = string.char(byte())
        end
        return table.concat(letters)
    end

    -- A varint, and how many bytes it took.
    local function varint(longest)
        local value = 0
        for i = 0, longest - 1 do
            local part = byte()
            value = value | (part & 0x7F) << (7 * i)
            if part < 0x80 then
                return value, i + 1
            end
        end
        error("offer", 0)
    end

    local function named(model)
        about.model = about.model or model
        return model == about.model and about.models[model]
    end

    local function field(left)
        local tag, taken = varint(1)
        local number, kind = tag >> 3, tag & 7
        if kind == 0 then
            local _, more = varint(10)
            return taken + more
        elseif kind == 1 or kind == 5 then
            local width = kind == 1 and 8 or 4
            skip(width)
            return taken + width
        elseif kind ~= 2 then
            error("offer", 0)
        end
        local length, more = varint(5)
        taken = taken + more + length
        if taken > left then
            error("offer", 0)
        elseif number ~= 1 then
            skip(length)
        elseif length > 64 or not named(text(length)) then
            error("offer", 0)
        end
        return taken
    end

    return function()
        while true do
            if byte() ~= 0 then
                error("compressed", 0)
            end
            local left = byte() << 24 | byte() << 16 | byte() << 8 | byte()
            if left > about.largest then
                error("large", 0)
            end
            about.messages = about.messages + 1
            if about.messages > 1 and not about.streams then
                error("offer", 0)
            end
            while left > 0 do
                left = left - field(left)
            end
            if left < 0 then
                error("offer", 0)
            end
        end
    end
end

local Edge = {id = "edge", flags = filter.FLT_CFG_FL_HTX}
Edge.__index = Edge

-- A call whose reader waits for its first byte.
local function begun(txn)
    local method = txn:get_var("txn.path"):match("[^/]*$")
    local infers, streams = method == "ModelInfer", method == "ModelStreamInfer"
    local call = {
        infers = infers,
        streams = streams,
        models = streams and STREAMED or PUBLIC,
        largest = infers and LARGEST or QUESTION,
        messages = 0,
    }
    call.reader = coroutine.create(reader(call))
    coroutine.resume(call.reader)
    return call
end

-- Why the next piece must not pass, or nil. What the reader did not ask for is refused too.
local function refusal(call, piece)
    if not piece or #piece == 0 then
        return nil
    end
    local alive, said = coroutine.resume(call.reader, piece)
    if said ~= MORE then
        return not alive and REFUSALS[said] and said or "offer"
    end
end

function Edge:new()
    return setmetatable({}, Edge)
end

function Edge:start_analyze(txn, channel)
    if not channel:is_resp() then
        self.call = begun(txn)
        filter.register_data_filter(self, channel)
    end
    return filter.CONTINUE
end

-- An error of the script ends the call; HAProxy 2.6 takes the -1 of filter.ERROR for a very large number, and forwards.
function Edge:http_payload(_, message)
    local reason = refusal(self.call, message:body())
    if reason then
        error("a gRPC call was ended: " .. reason)
    end
end

core.register_filter("edge", Edge, function(edge, _)
    return edge
end)

-- The same judgement of what has come of the first message, before the server hears of the call; and whether it paints. A
-- model that is not named yet counts as one that does.
core.register_action("edge", {"http-req"}, function(txn)
    local call = begun(txn)
    local reason = refusal(call, txn.f:req_body())
    if reason then
        txn:set_var("txn.refusal", reason)
    end
    txn:set_var("txn.paints", call.infers and call.model ~= "jobs")
end)

-- Answers a gRPC call with txn.refusal. The upload is swallowed first: a client that is answered in the midst of it takes
-- the end of the stream for a cancellation, and never reads why.
core.register_service("refuse", "http", function(applet)
    local status, sentence = table.unpack(REFUSALS[applet:get_var("txn.refusal")])
    local swallowed, piece = 0, nil
    while piece ~= "" and swallowed < 4 * LARGEST and not applet.path:find("Stream") do
        piece = applet:receive(65536) or ""
        swallowed = swallowed + #piece
    end
    applet:set_status(200)
    applet:add_header("grpc-status", tostring(status))
    applet:add_header("grpc-message", sentence)
    applet:add_header("content-length", "0")
    applet:start_response()
end)
