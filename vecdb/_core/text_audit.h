// text_audit.h: what do a chunk's bytes say, taken apart, and do its bounds bound?
#pragma once

#include "text_segment.h"

namespace vecdb::text {

struct Posted {
    Bytes term;
    std::vector<u32> rids, values;  // of live docs
};

// The lists of chunk `number`, checked against the header: ValueError where something is not so.
// `last`: the last doc of the list that may go on from the chunk before, with its term; both are kept.
void read_chunk(const Segment& of, u32 number, const u8* p, u64 size, Mask dead, Bytes& term, u32& last,
                std::vector<Posted>& out);

}  // namespace vecdb::text
