# Proof that sim_names can fail: one file of the client or the master built again with a planted bug (#ifdef PLANT_...), in place of the
# library's, which must be found within a fixed number of seeds. With none of them sim_names finds nothing.
set(names_plants
	client/delegations:CLIENT_RECALL_UNSENT:100    # a delegation is given back before what was done under it is sent
	client/changes:CLIENT_CHANGES_UNWAITED:100     # requests do not wait for the client's own changes on their way
	client/changes:CLIENT_CHANGES_UNORDERED:100    # changes that are sent together are done in another order
	master/gate:GATE_WITHOUT_DIRECTORY:20	      # a lookup does not recall the delegation of its directory
	master/gate:DONE_IS_HELD:200		      # a new leader holds back the answers to changes that are done (found by sim_names)
	master/client_service:HASTY_LEADER:200)	      # a new leader does not wait for its predecessor's delegations
add_library(sim_names_parts OBJECT sim/sim_names.c sim/names_client.c sim/names_change.c sim/names_model.c)
target_link_libraries(sim_names_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${names_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 file)
	list(GET plant 1 bug)
	list(GET plant 2 seeds)
	set(name sim_names_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/${file}.c $<TARGET_OBJECTS:sim_names_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
