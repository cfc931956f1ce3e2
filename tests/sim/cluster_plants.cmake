# Proof that sim_cluster can fail: one file built again with a planted bug (#ifdef PLANT_...), in place of the library's, which must be
# found within a fixed number of seeds. With none of them sim_cluster finds nothing.
set(cluster_plants
	client/file_flush:CLIENT_SYNC_IS_FLUSH:100:power	    # a sync does not wait for the disks
	client/file_flush:CLIENT_FLUSH_TOO_EARLY:400	    # a flush does not wait for the replicas
	client/file_io:CLIENT_RECALL_IGNORED:400	    # attributes are relied on after the master has taken them back
	chunkserver/chunk_sync:CHUNK_SYNC_SKIPPED:100:power	    # a chunkserver acknowledges before it has synced
	chunkserver/settle:OWN_CONTENT_AFTER_FAILURE:1500:disks   # who failed to write settles all the same, with what it has
	chunkserver/chunk_retry:CHUNK_RETRY_UNKNOWN:600:disks   # a write that is sent again is done again
	chunkserver/chunk_retry:CHUNK_RETRY_FORGOTTEN:1500:data # the same where nobody knows any more whether it was done
	chunkserver/chunk_delete:DELETED_MADE_ANEW:600:network	    # a write that comes late makes a deleted chunk anew
	master/placement:COPYSET_WITH_THE_DEAD:100	    # a lost copy is made anew on a server that is as good as there
	master/repair:OLD_COPY_LEAVES_EARLY:100	    # a copy that moves leaves before the new one is complete
	chunkserver/chunk_op:CHUNK_READ_UNWAITED:400	    # a read does not wait for what is not acknowledged yet
	master/meta/session:APPLY_TWICE:400		    # a request that is sent again is applied again
	chunkserver/cool_op:SHARDS_NOT_SYNCED:100:power:cold	    # a chunk is cold before its shards are on the disks
	chunkserver/cool_op:COOLED_FROM_THE_TAIL:500:network:cold	    # the shards lack what the head settles afterwards
	master/meta/cold:COLD_WITHOUT_FENCES:100:network:cold	    # written while a shard or copy of before may still be read
	master/meta/cold:ERASED_NOT_DELETED:60:data:cold)	    # blobs that are deleted while their pack is cold stay when it is hot
file(GLOB cluster_parts CONFIGURE_DEPENDS sim/cluster_*.c)
add_library(sim_cluster_parts OBJECT sim/sim_cluster.c ${cluster_parts})
target_link_libraries(sim_cluster_parts PRIVATE ${sim_rooms} granary_sim)
foreach(plant ${cluster_plants})
	string(REPLACE ":" ";" plant ${plant})
	list(GET plant 0 file)
	list(GET plant 1 bug)
	list(GET plant 2 seeds)
	set(name sim_cluster_plant_${bug})
	add_executable(${name} ${CMAKE_SOURCE_DIR}/${file}.c $<TARGET_OBJECTS:sim_cluster_parts>)
	target_compile_definitions(${name} PRIVATE PLANT_${bug})
	target_link_libraries(${name} PRIVATE ${sim_rooms} granary_sim granary_rpc granary_sim granary_common)
	list(LENGTH plant length)
	set(storm)
	if(length GREATER 3)
		list(GET plant 3 storm)
		set(storm ${CMAKE_COMMAND} -E env SIM_STORM=${storm})
	endif()
	if(length GREATER 4)
		list(APPEND storm SIM_COLD=1)
	endif()
	add_test(NAME ${name} COMMAND ${storm} $<TARGET_FILE:${name}> --seed 1 --seeds ${seeds} --expect-failure)
	set_tests_properties(${name} PROPERTIES LABELS sim TIMEOUT 600)
endforeach()
