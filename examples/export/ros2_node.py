"""A ROS 2 node around one exported agent; a sketch, to be adapted to your messages.

Copy the agent's folder to the robot and start, beside its `runner.py`:

    python ros2_node.py --ros-args -p folder:=. -p rate:=20.0
"""

import rclpy
from rclpy.node import Node
from runner import BadPolicy, Policy
from std_msgs.msg import Bool, Float32MultiArray


class Agent(Node):
    """Acts at a fixed rate on the newest observation; a new episode begins with a message on `reset`."""

    def __init__(self):
        super().__init__("omad_agent")
        folder = self.declare_parameter("folder", ".").value
        rate = self.declare_parameter("rate", 20.0).value
        self.policy, self.obs = Policy(folder), None
        self.actions = self.create_publisher(Float32MultiArray, "action", 1)
        self.create_subscription(Float32MultiArray, "observation", self.observe, 1)
        self.create_subscription(Bool, "reset", self.reset, 1)
        self.create_timer(1.0 / rate, self.act)

    def observe(self, message):
        """Keep the newest observation of this agent alone."""
        self.obs = message.data

    def reset(self, _):
        """Begin an episode; what was seen in the one before is not acted on."""
        self.policy.reset()
        self.obs = None

    def act(self):
        """Publish an action, in the units of the env that the team was trained in; each observation is used once."""
        if self.obs is None:
            return
        obs, self.obs = self.obs, None
        try:
            action = self.policy.act(obs)
        except BadPolicy as error:  # a wrong shape, or a number that is not finite
            self.get_logger().error(str(error))
            return
        self.actions.publish(Float32MultiArray(data=action.tolist()))


def main():
    """Spin until the node is stopped."""
    rclpy.init()
    rclpy.spin(Agent())
    rclpy.shutdown()


if __name__ == "__main__":
    main()
