import gc

gc.disable()  # until the modules are imported and the tests collected, which takes a third longer with it
