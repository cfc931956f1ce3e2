# Proof that sim_raft can fail: the core and the log built again with one planted bug each (#ifdef PLANT_...), each of which
# must be found within a fixed number of seeds. With none of them sim_raft finds nothing (test sim_raft).
set(raft_plants
	COMMIT_OLDER_TERM:leaders:9000 # a leader commits an older term's entry by counting copies
	VOTE_WITHOUT_SYNC:any:500     # a vote leaves before it is durable
	VOTE_WITHOUT_LOG:any:300       # a vote for a candidate with a shorter log
	ACK_BEFORE_SYNC:any:1500       # a follower acknowledges entries before they are durable
	LEASE_IGNORED:any:500          # a deposed leader answers reads
	VOTE_IN_LEASE:links:500        # a follower votes while a leader that it has heard may hold its lease
	VOTE_AFTER_START:links:9000    # a vote right after a restart, when a lease granted before it may still hold
	COMMIT_NOT_STORED:any:500      # entries are applied that are committed, but not on the member's own disk
	WAL_NAME_NOT_SYNCED:disks:9000 # a segment is used whose name never became durable (found by sim_raft, once)
	LEARNER_COUNTS:members:1500    # a learner's acknowledgement counts
	STRANGER_COUNTS:members:4500   # the answers of an empty disk under a member's name count
	TWO_CHANGES:members:4500       # a change of membership while the one before, or the term's barrier, is not committed
	LEFT_ALONE_TOO_SOON:members:30000 # the only voter that is left elects itself while the leader that left it is not gone
	CUT_ON_DAMAGE:rot:300          # a log ends before its first damaged entry
	HOLE_GIVEN_OUT:rot:300         # a damaged entry is given out as committed
	WAL_WITHOUT_SYNC:any:100)      # the log reports a batch durable that is only written
file(GLOB plant_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/master/raft/*.c ${CMAKE_SOURCE_DIR}/master/wal*.c)
file(GLOB plant_beside CONFIGURE_DEPENDS sim/raft_*.c)
add_library(sim_raft_parts OBJECT sim/sim_raft.c ${plant_beside})
target_link_libraries(sim_raft_parts PRIVATE granary_sim_runner granary_common granary_sim)
foreach(plant ${raft_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 bug)
	list(GET plant 1 storm)
	list(GET plant 2 seeds)
	set(name sim_raft_plant_${bug})
	add_executable(${name} ${plant_sources} $<TARGET_OBJECTS:sim_raft_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE granary_sim_runner granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -E env SIM_STORM=${storm} $<TARGET_FILE:${name}> --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 300)
endforeach()
