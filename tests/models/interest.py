"""Which filters other shards want: a log per shard, and when a SUBACK may leave.

A shard appends what changed to its log, once for all others. Whoever routes a PUBLISH first takes it in, then reads all logs,
then acts. So a SUBACK may leave as soon as its filter is in the log: a PUBLISH that is sent after that SUBACK was seen is taken
in after that, and the log is read later still. A log has room for as much as the slowest reader lacks; what finds no room
waits as a set of filters whose value is looked up when it is appended, and so do their SUBACKs.
"""
from check import Wrong, check, finish

SHARDS = range(3)


class Interest:
    """`clients`: (home, filter, script of s(ubscribe) and u(nsubscribe)); `publishers`: (shard, filter)."""

    def __init__(self, clients, publishers, room, filters=1, without=""):
        self.clients, self.publishers, self.room, self.filters, self.without = clients, publishers, room, filters, without

    def init(self):
        return [
            [[] for _ in SHARDS],                                  # 0: log of each shard: [filter, wanted]
            [[0] * 3 for _ in SHARDS],                             # 1: how far [reader][writer] has read
            [[[False] * self.filters for _ in SHARDS] for _ in SHARDS],  # 2: what [reader] thinks of [writer]'s filters
            [[] for _ in SHARDS],                                  # 3: filters that found no room
            [[False] * self.filters for _ in SHARDS],              # 4: filters that linger
            [[0, 0, False] for _ in self.clients],                 # 5: script position, subscribed since, SUBACK seen
            [["idle", [], []] for _ in self.publishers],           # 6: state, who must get it, logs not read since
        ]

    def wanted(self, state, shard, filter):
        here = any(state[5][i][1] for i, (home, f, _) in enumerate(self.clients) if (home, f) == (shard, filter))
        lingers = state[4][shard][filter] and self.without != "linger"
        return here or lingers

    def has_room(self, state, shard):
        slowest = min(state[1][reader][shard] for reader in SHARDS if reader != shard)
        return len(state[0][shard]) - slowest < self.room

    def announce(self, state, shard, filter):
        if filter in state[3][shard]:
            return
        if self.has_room(state, shard) and not state[3][shard]:
            state[0][shard].append([filter, self.wanted(state, shard, filter)])
        else:
            state[3][shard].append(filter)

    def actions(self, state):
        for i, (home, filter, script) in enumerate(self.clients):
            at, since, seen = state[5][i]
            if at < len(script):
                yield ("client", i, script[at])
            if since and not seen and (filter not in state[3][home] or self.without == "room"):
                yield ("SUBACK", i)
        for shard in SHARDS:
            if state[3][shard] and self.has_room(state, shard):
                yield ("flush", shard)
            for filter in range(self.filters):
                if state[4][shard][filter]:
                    yield ("lingered", shard, filter)
            for writer in SHARDS:
                if writer != shard and state[1][shard][writer] < len(state[0][writer]):
                    yield ("read", shard, writer)
        for j, (shard, _) in enumerate(self.publishers):
            phase, _, unread = state[6][j]
            if phase == "idle":
                yield ("PUBLISH", j)
            elif phase == "sent":
                yield ("take", j)
            elif phase == "taken":
                if unread and self.without != "order":
                    for writer in unread:
                        yield ("read for", j, writer)
                else:
                    yield ("act", j)

    def read(self, state, reader, writer):
        for filter, wanted in state[0][writer][state[1][reader][writer]:]:
            state[2][reader][writer][filter] = wanted
        state[1][reader][writer] = len(state[0][writer])

    def apply(self, state, label):
        kind, who = label[0], label[1]
        if kind == "client":
            home, filter, _ = self.clients[who]
            client = state[5][who]
            client[0] += 1
            if label[2] == "s":
                known = state[4][home][filter] or any(
                    state[5][i][1] for i, (h, f, _) in enumerate(self.clients) if (h, f) == (home, filter))
                client[1], client[2] = client[0], False
                state[4][home][filter] = False
                if not known:
                    self.announce(state, home, filter)
            else:
                client[1], client[2] = 0, False
                if not any(state[5][i][1] for i, (h, f, _) in enumerate(self.clients) if (h, f) == (home, filter)):
                    state[4][home][filter] = True
        elif kind == "SUBACK":
            state[5][who][2] = True
        elif kind == "flush":
            filter = state[3][who].pop(0)
            state[0][who].append([filter, self.wanted(state, who, filter)])
        elif kind == "lingered":
            state[4][who][label[2]] = False
            self.announce(state, who, label[2])
        elif kind == "read":
            self.read(state, who, label[2])
        elif kind == "PUBLISH":
            shard, filter = self.publishers[who]
            must = [[i, client[1]] for i, client in enumerate(state[5])
                    if client[1] and client[2] and self.clients[i][1] == filter and self.clients[i][0] != shard]
            state[6][who] = ["sent", must, []]
        elif kind == "take":
            shard, _ = self.publishers[who]
            state[6][who][0] = "taken"
            state[6][who][2] = [writer for writer in SHARDS if writer != shard]
        elif kind == "read for":
            self.read(state, self.publishers[who][0], label[2])
            state[6][who][2].remove(label[2])
        elif kind == "act":
            shard, filter = self.publishers[who]
            for client, since in state[6][who][1]:
                home = self.clients[client][0]
                if state[5][client][1] == since and not state[2][shard][home][filter]:
                    raise Wrong(f"client {client} has its SUBACK and is passed over")
            state[6][who] = ["done", [], []]

    def final(self, state):
        if any(client[1] and not client[2] for client in state[5]):
            raise Wrong("a SUBACK never leaves")
        for reader in SHARDS:
            for writer in SHARDS:
                for filter in range(self.filters):
                    if reader != writer and state[2][reader][writer][filter] != self.wanted(state, writer, filter):
                        raise Wrong("what a shard thinks of another is not so, and all is quiet")


if __name__ == "__main__":
    comes_and_goes = [(0, 0, "sus"), (0, 0, "s")]
    many = [(0, 0, "su"), (0, 1, "s"), (1, 0, "s")]
    check("one filter, two subscribers, one comes and goes", Interest(comes_and_goes, [(1, 0), (2, 0)], 2))
    check("room for one: the rest waits", Interest([(0, 0, "sus"), (0, 1, "su")], [(1, 0)], 1, 2))
    check("two writers, two filters", Interest(many, [(2, 0)], 1, 2))
    check("both publish and subscribe", Interest([(0, 0, "s"), (1, 0, "s")], [(1, 0), (0, 0)], 1))
    check("acts before it reads", Interest(comes_and_goes, [(1, 0)], 2, without="order"), holds=False)
    check("SUBACK while there is no room", Interest([(0, 0, "s"), (0, 1, "s")], [(1, 1)], 1, 2, "room"), holds=False)
    check("what lingers is announced as unwanted", Interest([(0, 1, "s"), (0, 0, "sus")], [(1, 0)], 1, 2, "linger"),
          holds=False)
    finish()
