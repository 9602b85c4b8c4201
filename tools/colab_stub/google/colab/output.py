"""What a cell shows, and JavaScript in the front end that is not there."""

from ._record import no_answer, record

_callbacks = {}


def eval_js(script, ignore_result=False, timeout_sec=None):
    """Return None, as after the timeout.

    Raises: TimeoutError where none is given, and the real one would wait forever.
    """
    record("output.eval_js", script=script, ignore_result=ignore_result, timeout_sec=timeout_sec)
    if timeout_sec is None and not ignore_result:
        raise no_answer("output.eval_js() without timeout_sec")


def enable_custom_widget_manager(version="5.0.0a"):
    """Allow widgets of third parties; without effect.

    Raises: ValueError for a version that Colab does not have.
    """
    record("output.enable_custom_widget_manager", version=version)
    if version != "5.0.0a":
        raise ValueError(f"Unknown widget version: {version}")


def disable_custom_widget_manager():
    """Undo `enable_custom_widget_manager`."""
    record("output.disable_custom_widget_manager")


def register_callback(function_name, callback):
    """Keep a function that JavaScript could call.

    Raises: ValueError if it is not callable.
    """
    record("output.register_callback", function_name=function_name)
    if not callable(callback):
        raise ValueError("callback must be callable")
    _callbacks[function_name] = callback


def unregister_callback(function_name):
    """Forget a function."""
    record("output.unregister_callback", function_name=function_name)
    _callbacks.pop(function_name, None)


def clear(wait=False, output_tags=()):
    """Clear what the cell shows."""
    from IPython.display import clear_output

    record("output.clear", wait=wait, output_tags=list(output_tags))
    clear_output(wait)


def serve_kernel_port_as_iframe(port, **options):
    """Show nothing: there is no front end."""
    record("output.serve_kernel_port_as_iframe", port=port, **options)


def serve_kernel_port_as_window(port, **options):
    """Show nothing: there is no front end."""
    record("output.serve_kernel_port_as_window", port=port, **options)
