# Proof that sim_master and sim_leases can fail: each linked with one file of the master built again with a planted bug
# (#ifdef PLANT_...), which must be found within a fixed number of seeds. With none of them they find nothing.
set(master_plants
	master:client_service:REPEAT_UNWAITED:400 # a repeated change is answered while the first one's recalls are under way (one seed
						 # in ten finds it)
	master:client_service:HASTY_LEADER:200	 # a new leader does not wait for leases that its predecessor granted
	master:replica:IDS_AGAIN:400		 # entries may be older than the ids in them: a later life makes these again
	master:replica_store:CUT_UNSYNCED:300	 # the log is cut before the database is synced
	master:install:SNAPSHOT_UNSYNCED:300	 # a snapshot is taken into use before it is durable
	leases:servers:RESET_IS_DEAD:20		 # a server whose connection broke counts as gone
	leases:servers:LEASE_UNCLEAN:20		 # a server that comes back has a lease before its garbage is delivered
	leases:servers:LEASES_FORGOTTEN:200)	 # a new leader counts servers as dead that it has not heard yet
foreach(plant ${master_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 part)
	list(GET plant 1 file)
	list(GET plant 2 bug)
	list(GET plant 3 seeds)
	set(name sim_${part}_plant_${bug})
	file(GLOB beside CONFIGURE_DEPENDS sim/${part}_*.c)
	add_executable(${name} sim/sim_${part}.c ${beside} ${CMAKE_SOURCE_DIR}/master/${file}.c)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE granary_sim_masters granary_sim_runner granary_master granary_raft granary_meta granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 300)
endforeach()
