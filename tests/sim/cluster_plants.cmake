# Proof that sim_cluster can fail: one file of the client built again with a planted bug (#ifdef PLANT_...), in place of the
# library's, which must be found within a fixed number of seeds. With none of them sim_cluster finds nothing.
set(cluster_plants
	CLIENT_HOLE_NOT_COMMITTED:file_flush:40 # others are not told of a chunk made in a hole (found by sim_cluster, once)
	CLIENT_SYNC_IS_FLUSH:file_flush:40	# a sync does not wait for the disks
	CLIENT_FLUSH_TOO_EARLY:file_flush:20	# a flush does not wait for the replicas
	CLIENT_RECALL_IGNORED:file_io:20)	# attributes are relied on after the master has taken them back
file(GLOB cluster_parts CONFIGURE_DEPENDS sim/cluster_*.c)
add_library(sim_cluster_parts OBJECT sim/sim_cluster.c ${cluster_parts})
target_link_libraries(sim_cluster_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${cluster_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 bug)
	list(GET plant 1 file)
	list(GET plant 2 seeds)
	set(name sim_cluster_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/client/${file}.c $<TARGET_OBJECTS:sim_cluster_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	add_test(NAME ${name} COMMAND ${name} 1 ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
