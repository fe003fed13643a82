-- Makes wrk send exactly so many requests, which it has no option for: `-s wrk.lua URL -- FOLDER FILES REQUESTS CONNECTIONS`.
-- The files "0", "1", … in FOLDER are whole requests, sent by turns. wrk asks `delay` before every request of a
-- connection; when all requests are sent, the connections are held, each after its answer. Needs -t1.

local requests, turn = {}, 0
local sent, held, limit, connections = 0, 0, 0, 0
local ONE_DAY_MS = 86400000

local function say(word)
   io.write(word, "\n")
   io.flush()
end

function init(arguments)
   local folder, files = arguments[1], tonumber(arguments[2])
   limit, connections = tonumber(arguments[3]), tonumber(arguments[4])
   for number = 0, files - 1 do
      local file = assert(io.open(folder .. "/" .. number, "rb"))
      requests[number] = file:read("*a")
      file:close()
   end
end

function request()
   turn = (turn + 1) % (#requests + 1)
   return requests[turn]
end

function delay()
   if sent < limit then
      if sent == 0 then
         say("begun")
      end
      sent = sent + 1
      return 0
   end
   held = held + 1
   if held == connections then
      say("answered")
   end
   return ONE_DAY_MS
end
