# Proof that scenarios can fail: as in cluster_plants.cmake, each found by the schedule that makes it bite.
set(scenario_plants
	chunkserver/master_link:CHUNK_LEASE_UNCHECKED:07_lease_ran_out:600 # who was left out and does not know goes on serving
	chunkserver/master_link:CHUNK_LEASE_WALL_CLOCK:07_lease_ran_out:1000 # a lease is counted by a clock that jumps
	chunkserver/chunk_op:VERSION_CHECK_SKIPPED:07_lease_ran_out:20	   # a member takes what is meant for a chain of before
	master/failure:RETIRED_MEMBER_STAYS:13_leader_lost_retiring:10 # who retired its copy remains a member: writers wait for ever
	chunkserver/scrub:SETS_NOT_LOOKED_AT:11_rot_cold:5	   # a scrub looks at each shard alone
	chunkserver/rebuild_op:WRONG_SOURCE_NOT_SOUGHT:11_rot_cold:5 # a rebuild from a shard that is wrong fails, again and again
	master/cooling:REBUILT_OF_BAD:11_rot_cold:5	   # … or takes one that is known to be
	master/meta/cold:REBUILD_VERSION_REUSED:12_rebuilt_twice:5 # two attempts make a shard in the same version
	master/cooling:DONE_OF_ANOTHER_ATTEMPT:12_cooled_twice:5 # the end of an attempt is taken for that of the next
	master/cooling:COOLED_IN_THE_PAST:15_old_masters_cold:40 # masters of an older snapshot give up what has become cold since
	master/replica:IDS_AGAIN:16_behind_cold:40)	   # a shard has an id that another had
file(GLOB scenario_parts CONFIGURE_DEPENDS sim/scenarios_*.c)
add_library(sim_scenarios_parts OBJECT sim/sim_scenarios.c ${scenario_parts} ${cluster_parts})
target_link_libraries(sim_scenarios_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${scenario_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 file)
	list(GET plant 1 bug)
	list(GET plant 2 scenario)
	list(GET plant 3 seeds)
	set(name sim_scenario_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/${file}.c $<TARGET_OBJECTS:sim_scenarios_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} ${scenario} --seed 1 --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
